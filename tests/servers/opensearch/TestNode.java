import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.Node;

/**
 * Runs one OpenSearch node in the foreground: TestNode DATA HTTP_PORT [setting=value ...].
 *
 * The distribution's own launcher is not published as a jar, so this does what it does, without its Java agent
 * and its key store. The HTTP server is a plugin, which `Http` names instead of a folder.
 */
public class TestNode extends Node {
    private TestNode(Environment environment) {
        super(environment, Http.PLUGINS, false);
    }

    public static void main(String[] args) throws Exception {
        Path data = Path.of(args[0]).toAbsolutePath();
        for (String folder : List.of("config", "logs", "data", "modules", "plugins")) {
            Files.createDirectories(data.resolve(folder));
        }
        LogConfigurator.configureWithoutConfig(Settings.builder().put("logger.level", "INFO").build());
        run(new TestNode(new Environment(settings(data, args), data.resolve("config"))));
    }

    private static Settings settings(Path data, String[] args) {
        Settings.Builder settings = Settings.builder()
            .put("path.home", data.toString())
            .put("cluster.name", "pillowd-tests")
            .put("node.name", "n1")
            .put("http.host", "127.0.0.1")
            .put("http.port", args[1])
            .put("transport.host", "127.0.0.1")
            .put("transport.port", "0")
            .put("discovery.type", "single-node");
        for (int i = 2; i < args.length; i++) {
            int equals = args[i].indexOf('=');
            settings.put(args[i].substring(0, equals), args[i].substring(equals + 1));
        }
        return settings.build();
    }

    private static void run(Node node) throws Exception {
        CountDownLatch closed = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception e) {
                e.printStackTrace();
            }
            closed.countDown();
        }));
        node.start();
        closed.await();
    }
}
