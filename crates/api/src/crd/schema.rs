//! The OpenAPI schemas of all kinds: for each, the top-level properties beside apiVersion, kind and metadata.

use serde_json::{Value, json};

pub(super) fn string() -> Value {
    json!({"type": "string"})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

fn integer() -> Value {
    json!({"type": "integer"})
}

fn int64() -> Value {
    json!({"type": "integer", "format": "int64"})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn words(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn labels() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}})
}

fn free_object() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

pub(super) fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn object_with(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "properties": properties, "required": required})
}

fn with_default(mut schema: Value, default: Value) -> Value {
    schema["default"] = default;
    schema
}

fn conditions() -> Value {
    let condition = json!({
        "lastTransitionTime": time(),
        "message": {"type": "string", "maxLength": 32768},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "reason": {
            "type": "string",
            "minLength": 1,
            "maxLength": 1024,
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        },
        "status": words(&["True", "False", "Unknown"]),
        "type": {
            "type": "string",
            "maxLength": 316,
            "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        },
    });
    list(object_with(&["lastTransitionTime", "message", "reason", "status", "type"], condition))
}

/// Conditions as a list that is merged by type.
fn conditions_by_type() -> Value {
    let mut schema = conditions();
    schema["x-kubernetes-list-type"] = json!("map");
    schema["x-kubernetes-list-map-keys"] = json!(["type"]);
    schema
}

fn secret_ref() -> Value {
    let mut schema = object(json!({"name": string(), "namespace": string()}));
    schema["x-kubernetes-map-type"] = json!("atomic");
    schema
}

fn promise_ref() -> Value {
    object_with(&["name"], json!({"name": string()}))
}

fn resource_ref() -> Value {
    object_with(&["name", "namespace"], json!({"name": string(), "namespace": string(), "generation": integer()}))
}

fn promise_spec() -> Value {
    let pipelines = || {
        let mut schema = list(json!({"type": "object"}));
        schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
        schema
    };
    let workflow = || object(json!({"configure": pipelines(), "delete": pipelines()}));
    let mut api = free_object();
    api["x-kubernetes-embedded-resource"] = json!(true);
    object(json!({
        "api": api,
        "dependencies": list(free_object()),
        "destinationSelectors": list(object(json!({"matchLabels": labels()}))),
        "requiredPromises": list(object(json!({"name": string(), "version": string()}))),
        "workflows": object(json!({
            "config": object(json!({"pipelineNamespace": string(), "reconciliationInterval": string()})),
            "promise": workflow(),
            "resource": workflow(),
        })),
    }))
}

pub(super) fn promise() -> Value {
    let pipeline = object(json!({
        "attempts": int64(),
        "lastTransitionTime": time(),
        "message": string(),
        "name": string(),
        "nextRetryAt": string(),
        "phase": string(),
    }));
    let kratix = object(json!({
        "apiVersion": string(),
        "kind": string(),
        "lastAvailableTime": time(),
        "status": string(),
        "version": string(),
        "workflows": object(json!({"pipelines": list(pipeline), "suspendedGeneration": int64()})),
    }));
    let summary = object(json!({"name": string(), "version": string()}));
    json!({
        "spec": promise_spec(),
        "status": object_with(&["workflows", "workflowsFailed", "workflowsSucceeded"], json!({
            "apiVersion": string(),
            "conditions": conditions(),
            "kind": string(),
            "kratix": kratix,
            "lastAvailableTime": time(),
            "message": string(),
            "observedGeneration": int64(),
            "requiredBy": list(object(json!({"promise": summary, "requiredVersion": string()}))),
            "requiredPromises": list(object(json!({"name": string(), "state": string(), "version": string()}))),
            "status": string(),
            "version": string(),
            "workflows": int64(),
            "workflowsFailed": int64(),
            "workflowsSucceeded": int64(),
        })),
    })
}

pub(super) fn promise_release() -> Value {
    let source = object_with(
        &["type"],
        json!({
            "secretRef": secret_ref(),
            // On the leaf as well: a source with a URL alone means http.
            "type": with_default(words(&["http"]), json!("http")),
            "url": string(),
        }),
    );
    json!({
        "spec": object_with(&["sourceRef"], json!({
            "sourceRef": with_default(source, json!({"type": "http"})),
            "version": string(),
        })),
        "status": object(json!({"conditions": conditions(), "status": string()})),
    })
}

pub(super) fn promise_revision() -> Value {
    json!({
        "spec": object_with(&["promiseRef", "promiseSpec", "version"], json!({
            "promiseRef": promise_ref(),
            "promiseSpec": promise_spec(),
            "version": string(),
        })),
        "status": object(json!({"conditions": conditions_by_type(), "latest": boolean()})),
    })
}

pub(super) fn destination() -> Value {
    let mut filepath = object(json!({
        "filename": string(),
        "mode": with_default(words(&["nestedByMetadata", "aggregatedYAML", "none"]), json!("nestedByMetadata")),
    }));
    filepath["default"] = json!({"mode": "nestedByMetadata"});
    // On the object, not on the leaf: a rule on the leaf is skipped when either side lacks it.
    filepath["x-kubernetes-validations"] = json!([{
        "rule": "(has(self.mode) ? self.mode : 'nestedByMetadata') == (has(oldSelf.mode) ? oldSelf.mode : 'nestedByMetadata')",
        "message": "filepath.mode is immutable",
        "fieldPath": ".mode",
    }]);
    json!({
        "spec": object_with(&["path"], json!({
            "cleanup": with_default(words(&["none", "all"]), json!("none")),
            "filepath": filepath,
            "initWorkloads": with_default(object(json!({"enabled": with_default(boolean(), json!(true))})), json!({})),
            "path": string(),
            "stateStoreRef": object_with(&["kind", "name"], json!({
                "kind": words(&["BucketStateStore", "GitStateStore"]),
                "name": string(),
            })),
            "strictMatchLabels": boolean(),
        })),
        "status": object(json!({"conditions": conditions()})),
    })
}

fn state_store_status() -> Value {
    object_with(&["status"], json!({"conditions": conditions(), "observedGeneration": int64(), "status": string()}))
}

pub(super) fn git_state_store() -> Value {
    let author = object(json!({"email": string(), "name": string()}));
    json!({
        "spec": object(json!({
            "authMethod": with_default(words(&["basicAuth", "ssh", "githubApp"]), json!("basicAuth")),
            "branch": with_default(string(), json!("main")),
            "gitAuthor": with_default(author, json!({"name": "kratix"})),
            "insecureSkipTLSVerify": boolean(),
            "path": string(),
            "secretRef": secret_ref(),
            "url": string(),
        })),
        "status": state_store_status(),
    })
}

pub(super) fn bucket_state_store() -> Value {
    json!({
        "spec": object_with(&["bucketName", "endpoint"], json!({
            "authMethod": with_default(words(&["accessKey", "IAM"]), json!("accessKey")),
            "bucketName": string(),
            "endpoint": string(),
            "insecure": boolean(),
            "insecureSkipTLSVerify": boolean(),
            "path": string(),
            "secretRef": secret_ref(),
            "useDualStack": boolean(),
        })),
        "status": state_store_status(),
    })
}

fn workloads() -> Value {
    list(object(json!({"content": string(), "filepath": string()})))
}

pub(super) fn work() -> Value {
    let selectors = list(object(json!({"matchLabels": labels(), "source": string()})));
    json!({
        "spec": object(json!({
            "lastExecutionTimestamp": time(),
            "promiseName": string(),
            "resourceName": string(),
            "workloadGroups": list(object(json!({
                "destinationSelectors": selectors,
                "directory": string(),
                "id": string(),
                "workloads": workloads(),
            }))),
        })),
        "status": object(json!({
            "conditions": conditions(),
            "workPlacements": integer(),
            "workPlacementsCreated": integer(),
        })),
    })
}

pub(super) fn work_placement() -> Value {
    json!({
        "spec": object(json!({
            "generation": int64(),
            "id": string(),
            "promiseName": string(),
            "resourceName": string(),
            "targetDestinationName": string(),
            "workloads": workloads(),
        })),
        "status": object(json!({"conditions": conditions(), "versionID": string()})),
    })
}

pub(super) fn resource_binding() -> Value {
    json!({
        "spec": object_with(&["promiseRef", "resourceRef", "version"], json!({
            "promiseRef": promise_ref(),
            "resourceRef": resource_ref(),
            "version": string(),
        })),
        "status": object(json!({
            "conditions": conditions_by_type(),
            "failedVersion": string(),
            "lastAppliedVersion": string(),
        })),
    })
}

pub(super) fn health_record() -> Value {
    let states = words(&["unknown", "ready", "unhealthy", "healthy", "degraded"]);
    json!({
        "data": object_with(&["promiseRef", "state"], json!({
            "details": free_object(),
            "lastRun": int64(),
            "promiseRef": promise_ref(),
            "resourceRef": resource_ref(),
            "state": with_default(states, json!("unknown")),
        })),
    })
}

pub(super) fn dry_run() -> Value {
    let component = object_with(
        &["dryRun", "phase", "promise", "request"],
        json!({
            "dryRun": string(),
            "message": string(),
            "namespace": string(),
            "phase": string(),
            "promise": string(),
            "request": string(),
        }),
    );
    json!({
        "spec": object_with(&["promiseRef", "resource", "resourceRequestRef"], json!({
            "promiseRef": promise_ref(),
            "resource": free_object(),
            "resourceRequestRef": object_with(&["name"], json!({"name": string(), "namespace": string()})),
        })),
        "status": object(json!({"components": list(component), "conditions": conditions()})),
    })
}
