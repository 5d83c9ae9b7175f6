//! What pipelines may do in the cluster, as the API server enforces it: asked by the containers themselves.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kratix_api::Promise;
use kratix_testing::wait;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::world::{World, promise, request};

/// Reads as the account of the pod and writes down what the API server said: nothing of what was read.
const SCRIPT: &str = r#"
ask() {
    if answer=$(HOME=/tmp kubectl get --raw "$2" 2>&1 >/dev/null); then answer=allowed; fi
    case $answer in *forbidden*|*Forbidden*) answer=forbidden ;; esac
    echo "$1: $answer" >> /kratix/output/answers.txt
}
ask own /apis/test.kratix.io/v1/namespaces/default/asks/x
ask secret /api/v1/namespaces/default/secrets/locked
ask near /api/v1/namespaces/default/configmaps/note
ask elsewhere /api/v1/namespaces/elsewhere/configmaps/note
ask everywhere /api/v1/nodes
ask beyond /api/v1/namespaces/elsewhere/secrets/locked
"#;

/// Makes a Promise of two pipelines that ask, with these permissions for the first; the second uses an account of its own.
fn asking(permissions: &Value) -> Value {
    let mut document: Value = serde_saphyr::from_str(&promise("ask", "Ask", SCRIPT)).unwrap();
    let configure = &mut document["spec"]["workflows"]["resource"]["configure"];
    let mut second = configure[0].clone();
    second["metadata"]["name"] = "custom".into();
    second["spec"]["rbac"] = json!({ "serviceAccount": "mine" });
    configure[0]["spec"]["rbac"] = json!({ "permissions": permissions });
    configure.as_array_mut().unwrap().push(second);
    document
}

async fn create<K>(world: &World, namespace: &str, object: Value)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let api = Api::<K>::namespaced(world.hub(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// Waits until the file that a pipeline wrote says this.
async fn answers(world: &World, pipeline: &str, expected: &[(&str, &str)]) {
    let path = format!("worker-1/resources/default/ask/x/{pipeline}/5058f/answers.txt");
    let expected: String = expected.iter().map(|(what, answer)| format!("{what}: {answer}\n")).collect();
    wait::poll(&format!("{path} to be as expected"), || async {
        let files = world.files().await;
        let found = if files.contains(&path) { world.git(&["show", &format!("main:{path}")]) } else { String::new() };
        if found == expected { Ok(()) } else { Err(found) }
    })
    .await;
}

/// Returns the names of objects that give a pipeline more than every pipeline has.
async fn granted(world: &World) -> Vec<String> {
    async fn names<K>(world: &World) -> Vec<String>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let of_pipeline = ListParams::default().labels("kratix.io/promise-name=ask,kratix.io/pipeline-name=configure");
        let found = Api::<K>::all(world.hub()).list(&of_pipeline).await.unwrap().items;
        found.iter().map(|object| format!("{} {}", K::kind(&()), object.name_any())).collect()
    }
    let mut all = names::<Role>(world).await;
    all.extend(names::<RoleBinding>(world).await);
    all.extend(names::<ClusterRole>(world).await);
    all.extend(names::<ClusterRoleBinding>(world).await);
    all
}

/// §5, §15 *Permissions*
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_may_do_what_it_was_granted_for_as_long_as_it_is_granted_and_nothing_else() {
    let world = World::start().await;
    world.kubectl().run("create namespace elsewhere").await.ok();
    for namespace in ["default", "elsewhere"] {
        for kind in ["secret generic locked", "configmap note"] {
            world.kubectl().run(&format!("-n {namespace} create {kind} --from-literal=a=b")).await.ok();
        }
    }
    // The author's own account: Kratix neither labels nor removes it.
    create::<ServiceAccount>(&world, "default", json!({ "metadata": { "name": "mine" } })).await;
    let rules = json!([{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["locked"], "verbs": ["get"] }]);
    create::<Role>(&world, "default", json!({ "metadata": { "name": "mine" }, "rules": rules })).await;
    let binding = json!({
        "metadata": { "name": "mine" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "mine" },
        "subjects": [{ "kind": "ServiceAccount", "name": "mine", "namespace": "default" }],
    });
    create::<RoleBinding>(&world, "default", binding).await;

    let read = |resource: &str| json!({ "apiGroups": [""], "resources": [resource], "verbs": ["get", "list"] });
    let within = |namespace: &str, resource: &str| {
        let mut permission = read(resource);
        permission["resourceNamespace"] = namespace.into();
        permission
    };
    let all = json!([read("configmaps"), within("elsewhere", "configmaps"), within("*", "nodes")]);
    world.apply(&asking(&all).to_string()).await;
    world.promise_available("ask").await;
    world.apply(&request("Ask", "default", "x")).await;
    let (allowed, forbidden) = ("allowed", "forbidden");
    let told = |near, elsewhere, everywhere| {
        [
            ("own", allowed),
            ("secret", forbidden),
            ("near", near),
            ("elsewhere", elsewhere),
            ("everywhere", everywhere),
            ("beyond", forbidden),
        ]
    };
    answers(&world, "configure", &told(allowed, allowed, allowed)).await;
    let mut of_account = told(forbidden, forbidden, forbidden);
    of_account[1].1 = allowed;
    answers(&world, "custom", &of_account).await;
    assert_eq!(granted(&world).await.len(), 6, "{:?}", granted(&world).await);

    // One of three is left.
    let configure = asking(&json!([read("configmaps")]))["spec"]["workflows"].clone();
    let promises = Api::<Promise>::all(world.hub());
    let patch = Patch::Merge(json!({ "spec": { "workflows": configure } }));
    promises.patch("ask", &PatchParams::default(), &patch).await.unwrap();
    answers(&world, "configure", &told(allowed, forbidden, forbidden)).await;
    assert_eq!(granted(&world).await.len(), 2, "{:?}", granted(&world).await);

    let accounts = Api::<ServiceAccount>::namespaced(world.hub(), "default");
    world.kubectl().run("delete promise ask").await.ok();
    wait::gone(&promises, "ask").await;
    assert_eq!(granted(&world).await, Vec::<String>::new());
    let mine = accounts.get("mine").await.unwrap();
    assert!(mine.labels().is_empty(), "{:?}", mine.labels());
}
