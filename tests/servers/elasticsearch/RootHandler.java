package pillowd;

import java.util.List;
import java.util.function.Supplier;
import org.apache.lucene.util.Version;
import org.elasticsearch.Build;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.cluster.node.DiscoveryNodes;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;

/** The name, cluster and version of this node, as an official distribution gives them. */
public class RootHandler extends BaseRestHandler {
    private static final String ANSWER = """
        {"name":"%s","cluster_name":"%s","cluster_uuid":"_na_","version":{"number":"%s","build_flavor":"%s",\
        "build_type":"%s","build_hash":"%s","build_date":"%s","build_snapshot":%s,"lucene_version":"%s",\
        "minimum_wire_compatibility_version":"%s","minimum_index_compatibility_version":"%s"},\
        "tagline":"You Know, for Search"}
        """;

    private final Supplier<DiscoveryNodes> nodes;
    private final String cluster;

    public RootHandler(Supplier<DiscoveryNodes> nodes, String cluster) {
        this.nodes = nodes;
        this.cluster = cluster;
    }

    @Override
    public String getName() {
        return "main_action";
    }

    @Override
    public List<Route> routes() {
        return List.of(new Route(RestRequest.Method.GET, "/"), new Route(RestRequest.Method.HEAD, "/"));
    }

    @Override
    protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) {
        for (String parameter : List.of("pretty", "human", "filter_path")) {
            request.param(parameter); // reading one is what allows it
        }
        var accepted = request.getParsedAccept();
        String type = accepted != null ? accepted.responseContentTypeHeader() : "application/json";
        return channel -> channel.sendResponse(new RestResponse(RestStatus.OK, type, answer()));
    }

    private String answer() {
        Build build = Build.current();
        return ANSWER.formatted(nodes.get().getLocalNode().getName(), cluster, build.version(), build.flavor(),
            build.type().displayName(), build.hash(), build.date(), build.version().endsWith("-SNAPSHOT"),
            Version.LATEST, build.minWireCompatVersion(), build.minIndexCompatVersion());
    }
}
