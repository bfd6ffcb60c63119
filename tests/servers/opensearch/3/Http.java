import java.util.List;
import org.opensearch.Version;
import org.opensearch.plugins.PluginInfo;
import org.opensearch.transport.Netty4ModulePlugin;

/** The HTTP server, as OpenSearch 3 wants a plugin to be named. */
final class Http {
    static final List<PluginInfo> PLUGINS = List.of(new PluginInfo("transport-netty4", "HTTP", "1", Version.CURRENT,
        "17", Netty4ModulePlugin.class.getName(), "", List.of(), false));
}
