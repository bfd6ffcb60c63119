import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginBundle;
import org.elasticsearch.plugins.PluginsLoader;

/**
 * Runs one Elasticsearch node in the foreground: TestNode HOME DATA HTTP_PORT [setting=value ...].
 *
 * The distribution's own launcher is not published as a jar, so this does what it does, without its
 * security manager and its key store.
 */
public class TestNode {
    public static void main(String[] args) throws Exception {
        Path home = Path.of(args[0]).toAbsolutePath();
        Path data = Path.of(args[1]).toAbsolutePath();
        Settings settings = settings(home, data, args);
        for (String folder : List.of("config", "logs", "data", "repo")) {
            Files.createDirectories(data.resolve(folder));
        }
        LogConfigurator.configureESLogging();
        LogConfigurator.configureWithoutConfig(Settings.builder().put("logger.level", "INFO").build());
        run(new Environment(settings, data.resolve("config")));
    }

    private static Settings settings(Path home, Path data, String[] args) {
        Settings.Builder settings = Settings.builder()
            .put("path.home", home.toString())
            .put("path.data", data.resolve("data").toString())
            .put("path.logs", data.resolve("logs").toString())
            .put("path.repo", data.resolve("repo").toString())
            .put("cluster.name", "pillowd-tests")
            .put("node.name", "n1")
            .put("http.host", "127.0.0.1")
            .put("http.port", args[2])
            .put("transport.host", "127.0.0.1")
            .put("transport.port", "0")
            .put("discovery.type", "single-node");
        for (int i = 3; i < args.length; i++) {
            int equals = args[i].indexOf('=');
            settings.put(args[i].substring(0, equals), args[i].substring(equals + 1));
        }
        return settings.build();
    }

    private static void run(Environment environment) throws Exception {
        Node node = new Node(environment, PluginsLoader.createPluginsLoader(
            bundles("loadModulesBundles", environment.modulesDir()),
            bundles("loadPluginsBundles", environment.pluginsDir()),
            Map.of(), false));
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

    /** Calls PluginsLoader's method by name: releases differ in whether it takes a second argument. */
    @SuppressWarnings("unchecked")
    private static Set<PluginBundle> bundles(String name, Path folder) throws Exception {
        for (Method method : PluginsLoader.class.getMethods()) {
            if (method.getName().equals(name)) {
                boolean one = method.getParameterCount() == 1;
                return (Set<PluginBundle>) (one ? method.invoke(null, folder) : method.invoke(null, folder, false));
            }
        }
        throw new IllegalStateException(name);
    }
}
