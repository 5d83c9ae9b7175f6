use serde_json::{Value, json};

use super::*;

fn pipeline(spec: Value) -> Value {
    json!({
        "apiVersion": "platform.kratix.io/v1alpha1",
        "kind": "Pipeline",
        "metadata": {"name": "one"},
        "spec": spec,
    })
}

fn error(element: &Value) -> String {
    decode(element).unwrap_err().to_string()
}

#[test]
fn another_kind_or_version_is_named_kind_first() {
    let element = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "test"}});
    assert_eq!(error(&element), r#"unsupported pipeline "test" with APIVersion "ConfigMap/v1""#);
    assert_eq!(error(&json!({})), r#"unsupported pipeline "" with APIVersion "/""#);
    assert_eq!(error(&json!(7)), r#"unsupported pipeline "" with APIVersion "/""#);
}

#[test]
fn an_unknown_field_at_any_depth_is_named_by_its_last_part() {
    let deep = [
        json!({"non-existing": 1}),
        json!({"containers": [{"name": "a", "non-existing": null}]}),
        json!({"containers": [{"env": [{"name": "a", "valueFrom": {"secretKeyRef": {"non-existing": "x"}}}]}]}),
        json!({"containers": [{"securityContext": {"capabilities": {"non-existing": []}}}]}),
        json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"non-existing": 1}}]}}]}),
        json!({"rbac": {"permissions": [{"verbs": [], "non-existing": 1}]}}),
        json!({"jobOptions": {"non-existing": 1}}),
        json!({"tolerations": [{"non-existing": 1}]}),
    ];
    for spec in deep {
        let text = r#"failed unmarshalling pipeline one: json: unknown field "non-existing""#;
        assert_eq!(error(&pipeline(spec.clone())), text, "{spec}");
    }
    let mut with_status = pipeline(json!({}));
    with_status["status"] = json!({});
    assert!(error(&with_status).ends_with(r#"unknown field "status""#));
    let mut with_metadata = pipeline(json!({}));
    with_metadata["metadata"]["labelz"] = json!({});
    assert!(error(&with_metadata).ends_with(r#"unknown field "labelz""#));
}

#[test]
fn container_fields_that_kratix_does_not_offer_are_unknown() {
    for field in ["ports", "workingDir", "livenessProbe", "lifecycle", "stdin"] {
        let element = pipeline(json!({"containers": [{ field: null }]}));
        assert!(error(&element).contains(&format!("unknown field {field:?}")));
    }
}

#[test]
fn everything_that_exists_is_kept() {
    let spec = json!({
        "containers": [{
            "name": "a", "image": "i", "args": ["x"], "command": ["c"], "imagePullPolicy": "Always",
            "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "envFrom": [{"secretRef": {"name": "s"}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}],
            "securityContext": {"runAsUser": 1, "capabilities": {"drop": ["ALL"]}},
            "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
        }],
        "imagePullSecrets": [{"name": "p"}],
        "jobOptions": {"backoffLimit": 0},
        "nodeSelector": {"any/key": "v"},
        "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 5}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "c", "configMap": {"name": "c", "defaultMode": 420}}],
        "restartPolicy": "Never",
        "rbac": {"serviceAccount": "sa", "permissions": [{
            "resourceNamespace": "*", "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"],
            "resourceNames": ["x"], "nonResourceURLs": ["/healthz"],
        }]},
    });
    let element = pipeline(spec);
    assert_eq!(serde_json::to_value(decode(&element).unwrap()).unwrap(), element);
}

/// §2.2: `Image` is `image`, at any depth; keys of maps are data.
#[test]
fn names_of_fields_match_in_any_letter_case_and_keys_of_maps_stay() {
    let mut element = pipeline(json!({
        "Containers": [{
            "NAME": "a", "Image": "i", "ENVFROM": [{"SecretRef": {"Name": "s"}}],
            "securitycontext": {"Capabilities": {"DROP": ["ALL"]}}, "Resources": {"limits": {"CPU": "1"}},
        }],
        "nodeSelector": {"Disk": "SSD", "disk": null},
        "RBAC": {"Permissions": [{"Verbs": ["get"], "nonresourceurls": ["/x"]}]},
    }));
    element["metadata"]["Labels"] = json!({"Team": "t"});
    let decoded = decode(&element).unwrap();
    let container = &decoded.spec.containers[0];
    assert_eq!((container.name.as_str(), container.image.as_str()), ("a", "i"));
    assert_eq!(container.env_from[0].secret_ref.as_ref().unwrap().name, "s");
    let capabilities = container.security_context.as_ref().unwrap().capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
    assert!(container.resources.as_ref().unwrap().limits.as_ref().unwrap().contains_key("CPU"));
    assert_eq!(decoded.spec.node_selector, [("Disk".to_owned(), "SSD".to_owned())].into());
    assert_eq!(decoded.spec.rbac.unwrap().permissions[0].non_resource_urls, ["/x"]);
    assert_eq!(decoded.metadata.labels.unwrap()["Team"], "t");
    // Of two spellings the usual one holds, in whatever order they were written.
    let both = pipeline(json!({"containers": [{"image": "usual", "Image": "odd"}]}));
    assert_eq!(decode(&both).unwrap().spec.containers[0].image, "usual");
    let unknown = error(&pipeline(json!({"Containers": [{"Imagine": "i"}]})));
    assert_eq!(unknown, r#"failed unmarshalling pipeline one: json: unknown field "Imagine""#);
}

#[test]
fn null_means_not_given_and_numbers_are_quantities() {
    let spec = json!({"containers": [{"name": null, "args": null, "env": [{"name": "A", "value": null}],
        "resources": {"limits": {"cpu": 1, "memory": "2e3"}}}], "volumes": null, "rbac": null});
    let decoded = decode(&pipeline(spec)).unwrap();
    assert_eq!(decoded.spec.containers[0].resources.as_ref().unwrap().limits.as_ref().unwrap()["cpu"].0, "1");
}

#[test]
fn a_wrong_type_and_a_wrong_quantity_name_pipeline_and_field() {
    let quantity = "must match a number with an optional suffix such as m, k, Mi or e3";
    for (spec, cause) in [
        (
            json!({"containers": "none"}),
            "spec.containers: invalid type: string \"none\", expected a sequence".to_owned(),
        ),
        (
            json!({"containers": [{"image": "i"}, {"image": 5}]}),
            "spec.containers[1].image: invalid type: integer `5`, expected a string".into(),
        ),
        (
            json!({"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}),
            format!("spec.containers[0].resources.limits.cpu: quantity \"lots\" {quantity}"),
        ),
        (
            json!({"jobOptions": {"backoffLimit": "many"}}),
            "spec.jobOptions.backoffLimit: invalid type: string \"many\", expected i32".into(),
        ),
        (
            json!({"volumes": [{"name": "v", "secret": {"defaultMode": "0400"}}]}),
            "spec.volumes[0].secret.defaultMode: invalid type: string \"0400\", expected i32".into(),
        ),
    ] {
        assert_eq!(error(&pipeline(spec)), format!("failed unmarshalling pipeline one: {cause}"));
    }
}

#[test]
fn one_broken_workflow_leaves_the_others_alone() {
    let spec: crate::PromiseSpec = serde_json::from_value(json!({"workflows": {
        "resource": {"configure": [pipeline(json!({"non-existing": 1}))], "delete": [pipeline(json!({}))]},
    }}))
    .unwrap();
    let error = decode_workflow(&spec, WorkflowType::Resource, Action::Configure).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"failed parsing resource.configure pipeline: failed unmarshalling pipeline one: json: unknown field "non-existing""#
    );
    assert_eq!(decode_workflow(&spec, WorkflowType::Resource, Action::Delete).unwrap()[0].name(), "one");
    assert_eq!(decode_workflow(&spec, WorkflowType::Promise, Action::Configure), Ok(vec![]));
}

#[test]
fn every_pipeline_of_the_published_promises_is_accepted() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/marketplace");
    let Ok(folders) = std::fs::read_dir(root) else {
        eprintln!("skipped: no reference data at {root}");
        return;
    };
    let mut count = 0;
    for folder in folders {
        let Ok(text) = std::fs::read_to_string(folder.unwrap().path().join("promise.yaml")) else {
            continue;
        };
        let promise: crate::Promise = serde_saphyr::from_str(&text).unwrap();
        for workflow in WorkflowType::ALL {
            for action in Action::ALL {
                count += decode_workflow(&promise.spec, workflow, action).unwrap().len();
            }
        }
    }
    assert!(count >= 5, "{count} pipelines found");
}
