import java.util.List;
import org.opensearch.plugins.Plugin;
import org.opensearch.transport.Netty4Plugin;

/** The HTTP server, as OpenSearch 2 wants a plugin to be named. */
final class Http {
    static final List<Class<? extends Plugin>> PLUGINS = List.of(Netty4Plugin.class);
}
