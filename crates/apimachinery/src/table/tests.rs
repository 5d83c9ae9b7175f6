//! What `kubectl get` prints. Cells, columns and conditions were compared with those of the real server's printers for
//! some 30,000 random objects; the cases here keep one of each kind of decision.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{IncludeObject, render};
use crate::resource::Resource;
use crate::{builtin, crd};

fn now() -> Timestamp {
    "2024-01-02T00:00:00Z".parse().unwrap()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn found(group: &str, kind: &str) -> &'static Resource {
    builtin::find_kind(group, "v1", kind).unwrap_or_else(|| panic!("{kind} is not served"))
}

/// Lays out a table in the way of kubectl; `wide` shows all columns.
fn printed(resource: &Resource, objects: &[Value], wide: bool) -> String {
    let table = render(resource, objects, json!({}), IncludeObject::None, true, now());
    let columns = table["columnDefinitions"].as_array().unwrap();
    let shown: Vec<usize> = (0..columns.len()).filter(|at| wide || columns[*at]["priority"] == 0).collect();
    let text = |cell: &Value| match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut lines = vec![shown.iter().map(|at| text(&columns[*at]["name"]).to_uppercase()).collect::<Vec<_>>()];
    for row in table["rows"].as_array().unwrap() {
        assert_eq!(row["cells"].as_array().unwrap().len(), columns.len(), "{row}");
        lines.push(shown.iter().map(|at| text(&row["cells"][*at])).collect());
    }
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0) + 3;
    let lay = |line: &Vec<String>| {
        let cells = line.iter().enumerate().map(|(at, cell)| format!("{cell:0$}", width(at)));
        cells.collect::<String>().trim_end().to_owned()
    };
    lines.iter().map(lay).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(resource: &Resource, objects: &[&str], wide: bool, expected: &str) {
    let objects: Vec<Value> = objects.iter().map(|text| yaml(text)).collect();
    let found = printed(resource, &objects, wide);
    let expected = expected.trim_matches('\n');
    assert!(found == expected, "{}:\n{found}\nexpected:\n{expected}", resource.kind);
}

fn pod_line(status: &str) -> String {
    let pod = format!(
        "metadata: {{name: p, creationTimestamp: '2024-01-01T23:55:00Z'}}\nspec: {{containers: [{{name: a}}, {{name: b}}], \
         initContainers: [{{name: i}}, {{name: side, restartPolicy: Always}}]}}\n{status}"
    );
    let table = render(found("", "Pod"), &[yaml(&pod)], json!({}), IncludeObject::None, false, now());
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    cells[1..4].iter().map(|cell| cell.as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

/// Two containers `a` and `b`, an init container `i` and a sidecar `side`: READY, STATUS and RESTARTS.
#[test]
fn a_pod_is_summed_up_in_one_word() {
    for (status, expected) in [
        ("status: {}", "0/3  0"),
        ("status: {phase: Pending}", "0/3 Pending 0"),
        ("status: {phase: Failed, reason: Evicted}", "0/3 Evicted 0"),
        (
            "status: {phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: SchedulingGated}]}",
            "0/3 SchedulingGated 0",
        ),
        ("status: {initContainerStatuses: [{name: i, state: {running: {}}}]}", "0/3 Init:0/2 0"),
        ("status: {initContainerStatuses: [{name: i, state: {waiting: {reason: PodInitializing}}}]}", "0/3 Init:0/2 0"),
        (
            "status: {initContainerStatuses: [{name: i, state: {waiting: {reason: ImagePullBackOff}}}]}",
            "0/3 Init:ImagePullBackOff 0",
        ),
        (
            "status: {initContainerStatuses: [{name: i, state: {terminated: {exitCode: 1, reason: Error}}}]}",
            "0/3 Init:Error 0",
        ),
        ("status: {initContainerStatuses: [{name: i, state: {terminated: {exitCode: 2}}}]}", "0/3 Init:ExitCode:2 0"),
        (
            "status: {initContainerStatuses: [{name: i, state: {terminated: {exitCode: 137, signal: 9}}}]}",
            "0/3 Init:Signal:9 0",
        ),
        (
            "status: {initContainerStatuses: [{name: i, restartCount: 2, state: {terminated: {exitCode: 0}}}, \
             {name: side, state: {waiting: {}}}]}",
            "0/3 Init:1/2 2",
        ),
        (
            "status: {phase: Running, initContainerStatuses: [{name: i, restartCount: 2, state: {terminated: \
             {exitCode: 0}}}, {name: side, restartCount: 1, started: true, ready: true, state: {running: {}}}], \
             containerStatuses: [{name: a, ready: true, state: {running: {}}}, {name: b, state: {waiting: {reason: \
             CrashLoopBackOff}}, restartCount: 3, lastState: {terminated: {finishedAt: '2024-01-01T23:59:00Z'}}}]}",
            "2/3 CrashLoopBackOff 4 (60s ago)",
        ),
        (
            "status: {phase: Pending, containerStatuses: [{name: a, state: {waiting: {reason: ImagePullBackOff}}}]}",
            "0/3 ImagePullBackOff 0",
        ),
        (
            "status: {phase: Pending, containerStatuses: [{name: a, state: {waiting: {reason: PodInitializing}}}]}",
            "0/3 PodInitializing 0",
        ),
        (
            "status: {phase: Succeeded, containerStatuses: [{name: a, state: {terminated: {exitCode: 0, reason: \
             Completed}}}]}",
            "0/3 Completed 0",
        ),
        (
            "status: {phase: Failed, containerStatuses: [{name: a, state: {terminated: {exitCode: 1, reason: \
             Error}}}]}",
            "0/3 Error 0",
        ),
        (
            "status: {phase: Failed, containerStatuses: [{name: a, state: {terminated: {exitCode: 3}}}]}",
            "0/3 ExitCode:3 0",
        ),
        (
            "status: {phase: Running, conditions: [{type: Ready, status: 'True'}], containerStatuses: [{name: a, state: \
             {terminated: {reason: Completed}}}, {name: b, ready: true, state: {running: {}}}]}",
            "1/3 Running 0",
        ),
        (
            "status: {phase: Running, containerStatuses: [{name: a, state: {terminated: {reason: Completed}}}, {name: \
             b, ready: true, state: {running: {}}}]}",
            "1/3 NotReady 0",
        ),
        // The init container failed once more after the pod had been up.
        (
            "status: {phase: Running, conditions: [{type: Initialized, status: 'True'}], initContainerStatuses: [{name: \
             i, restartCount: 5, state: {running: {}}}], containerStatuses: [{name: a, ready: true, state: {running: \
             {}}}]}",
            "1/3 Init:0/2 0",
        ),
    ] {
        assert_eq!(pod_line(status), expected, "{status}");
    }
}

#[test]
fn a_pod_on_its_way_out_is_terminating() {
    let deleted = |status: &str| {
        let pod = format!("metadata: {{name: p, deletionTimestamp: '2024-01-01T23:55:00Z'}}\nstatus: {status}");
        let table = render(found("", "Pod"), &[yaml(&pod)], json!({}), IncludeObject::None, false, now());
        table["rows"][0]["cells"][2].clone()
    };
    assert_eq!(deleted("{phase: Running}"), "Terminating");
    assert_eq!(deleted("{phase: Succeeded}"), "Succeeded");
    assert_eq!(deleted("{phase: Running, reason: NodeLost}"), "Unknown");
}

#[test]
fn pods() {
    let pods = [
        "metadata: {name: web-1, creationTimestamp: '2024-01-01T23:55:00Z'}\nspec: {nodeName: here, containers: [{name: \
         a}]}\nstatus: {phase: Running, podIPs: [{ip: 10.0.0.7}], containerStatuses: [{name: a, ready: true, state: \
         {running: {}}}]}",
        "metadata: {name: web-2}\nspec: {containers: [{name: a}], readinessGates: [{conditionType: A}, {conditionType: \
         B}]}\nstatus: {phase: Pending, conditions: [{type: A, status: 'True'}]}",
    ];
    let expected = "
NAME    READY   STATUS    RESTARTS   AGE         IP         NODE     NOMINATED NODE   READINESS GATES
web-1   1/1     Running   0          5m          10.0.0.7   here     <none>           <none>
web-2   0/1     Pending   0          <unknown>   <none>     <none>   <none>           1/2";
    check(found("", "Pod"), &pods, true, expected);
    let expected = "
NAME    READY   STATUS    RESTARTS   AGE
web-1   1/1     Running   0          5m
web-2   0/1     Pending   0          <unknown>";
    check(found("", "Pod"), &pods, false, expected);
}

#[test]
fn rows_of_finished_pods_say_so() {
    for (phase, expected) in [
        (
            "Succeeded",
            json!([{"type": "Completed", "status": "True", "reason": "Succeeded",
                "message": "The pod has completed successfully."}]),
        ),
        ("Failed", json!([{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}])),
        ("Running", Value::Null),
    ] {
        let pod = json!({"status": {"phase": phase}});
        let table = render(found("", "Pod"), [&pod], json!({}), IncludeObject::None, false, now());
        assert_eq!(table["rows"][0]["conditions"], expected, "{phase}");
    }
}

#[test]
fn jobs() {
    let template = "template: {spec: {containers: [{name: a, image: x:1}, {name: b, image: y:2}]}}";
    let job = |name: &str, spec: &str, status: &str| {
        format!(
            "metadata: {{name: {name}, creationTimestamp: '2024-01-01T23:00:00Z'}}\nspec: {{{template}, {spec}}}\nstatus: \
             {status}"
        )
    };
    let jobs = [
        job("new", "completions: 1, selector: {matchLabels: {a: b}}", "{}"),
        job("running", "completions: 1", "{startTime: '2024-01-01T23:59:00Z'}"),
        job(
            "done",
            "completions: 2",
            "{succeeded: 2, startTime: '2024-01-01T23:00:00Z', completionTime: '2024-01-01T23:00:05Z', conditions: \
             [{type: Complete, status: 'True'}]}",
        ),
        job("failed", "parallelism: 3", "{conditions: [{type: Failed, status: 'True'}]}"),
        job("paused", "suspend: true", "{conditions: [{type: Suspended, status: 'True'}]}"),
    ];
    let jobs: Vec<&str> = jobs.iter().map(String::as_str).collect();
    let expected = "
NAME      STATUS      COMPLETIONS   DURATION   AGE   CONTAINERS   IMAGES    SELECTOR
new       Running     0/1                      60m   a,b          x:1,y:2   a=b
running   Running     0/1           60s        60m   a,b          x:1,y:2   <none>
done      Complete    2/2           5s         60m   a,b          x:1,y:2   <none>
failed    Failed      0/1 of 3                 60m   a,b          x:1,y:2   <none>
paused    Suspended   0/1                      60m   a,b          x:1,y:2   <none>";
    check(found("batch", "Job"), &jobs, true, expected);
}

#[test]
fn events_of_either_group() {
    let core = "apiVersion: v1\nmetadata: {name: e.1}\ntype: Warning\nreason: Failed\nmessage: \"  it broke \\n\"\n\
                involvedObject: {kind: Pod, name: p, fieldPath: 'spec.containers{a}'}\nsource: {component: kubelet, host: \
                here}\nfirstTimestamp: '2024-01-01T23:00:00Z'\nlastTimestamp: '2024-01-01T23:59:30Z'\ncount: 4";
    let expected = "
LAST SEEN   TYPE      REASON   OBJECT   MESSAGE
30s         Warning   Failed   pod/p    it broke";
    check(found("", "Event"), &[core], false, expected);
    let expected = "
LAST SEEN   TYPE      REASON   OBJECT   SUBOBJECT            SOURCE          MESSAGE    FIRST SEEN   COUNT   NAME
30s         Warning   Failed   pod/p    spec.containers{a}   kubelet, here   it broke   60m          4       e.1";
    check(found("", "Event"), &[core], true, expected);

    let new = "apiVersion: events.k8s.io/v1\nmetadata: {name: e.2}\ntype: Normal\nreason: Done\nnote: well\nregarding: \
               {kind: Promise, name: redis}\nreportingController: kratix\nreportingInstance: kratix-0\neventTime: \
               '2024-01-01T23:59:00.123456Z'";
    let series = format!("{new}\nseries: {{count: 9, lastObservedTime: '2024-01-01T23:59:58.000000Z'}}");
    let expected = "
LAST SEEN   TYPE     REASON   OBJECT          SUBOBJECT   SOURCE             MESSAGE   FIRST SEEN   COUNT   NAME
59s         Normal   Done     promise/redis               kratix, kratix-0   well      59s          1       e.2
2s          Normal   Done     promise/redis               kratix, kratix-0   well      59s          9       e.2";
    check(found("events.k8s.io", "Event"), &[new, &series], true, expected);
}

const AGED: &str = "metadata: {name: x, creationTimestamp: '2023-12-29T21:30:00Z'}";

/// One object of every other kind: extra fields, whether all columns are shown, what is printed.
#[test]
fn other_kinds() {
    let cases: &[(&str, &str, &str, bool, &str)] = &[
        (
            "",
            "Namespace",
            "status: {phase: Active}",
            false,
            "
NAME   STATUS   AGE
x      Active   3d2h",
        ),
        (
            "",
            "ConfigMap",
            "data: {a: '1', b: '2'}\nbinaryData: {c: aGk=}",
            false,
            "
NAME   DATA   AGE
x      3      3d2h",
        ),
        (
            "",
            "Secret",
            "type: Opaque\ndata: {a: aGk=}",
            false,
            "
NAME   TYPE     DATA   AGE
x      Opaque   1      3d2h",
        ),
        (
            "",
            "ServiceAccount",
            "secrets: [{name: t}]",
            false,
            "
NAME   SECRETS   AGE
x      1         3d2h",
        ),
        (
            "",
            "LimitRange",
            "",
            false,
            "
NAME   CREATED AT
x      2023-12-29T21:30:00Z",
        ),
        (
            "rbac.authorization.k8s.io",
            "Role",
            "",
            false,
            "
NAME   CREATED AT
x      2023-12-29T21:30:00Z",
        ),
        (
            "rbac.authorization.k8s.io",
            "ClusterRole",
            "",
            false,
            "
NAME   CREATED AT
x      2023-12-29T21:30:00Z",
        ),
        (
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "",
            false,
            "
NAME   CREATED AT
x      2023-12-29T21:30:00Z",
        ),
        (
            "rbac.authorization.k8s.io",
            "RoleBinding",
            "roleRef: {kind: Role, name: r}\nsubjects: [{kind: User, name: u}, \
          {kind: User, name: v}, {kind: Group, name: g}, {kind: ServiceAccount, namespace: ns, name: s}]",
            true,
            "
NAME   ROLE     AGE    USERS   GROUPS   SERVICEACCOUNTS
x      Role/r   3d2h   u, v    g        ns/s",
        ),
        (
            "rbac.authorization.k8s.io",
            "ClusterRoleBinding",
            "roleRef: {kind: ClusterRole, name: r}",
            false,
            "
NAME   ROLE            AGE
x      ClusterRole/r   3d2h",
        ),
        (
            "coordination.k8s.io",
            "Lease",
            "spec: {holderIdentity: me}",
            false,
            "
NAME   HOLDER   AGE
x      me       3d2h",
        ),
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration",
            "webhooks: [{}, {}]",
            false,
            "
NAME   WEBHOOKS   AGE
x      2          3d2h",
        ),
        (
            "",
            "Node",
            "spec: {unschedulable: true}\nstatus: {conditions: [{type: Ready, status: 'True'}], nodeInfo: \
          {kubeletVersion: v1.34.1, osImage: Linux}, addresses: [{type: InternalIP, address: 10.0.0.1}]}",
            true,
            "
NAME   STATUS                     ROLES    AGE    VERSION   INTERNAL-IP   EXTERNAL-IP   OS-IMAGE   KERNEL-VERSION   \
CONTAINER-RUNTIME
x      Ready,SchedulingDisabled   <none>   3d2h   v1.34.1   10.0.0.1      <none>        Linux      <unknown>        \
<unknown>",
        ),
        (
            "",
            "Service",
            "spec: {type: ClusterIP, clusterIPs: [10.1.0.1], ports: [{port: 80, protocol: TCP}, {port: 53, \
          nodePort: 30053, protocol: UDP}], selector: {b: '2', a: '1'}}",
            true,
            "
NAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)               AGE    SELECTOR
x      ClusterIP   10.1.0.1     <none>        80/TCP,53:30053/UDP   3d2h   a=1,b=2",
        ),
        (
            "",
            "Service",
            "spec: {type: LoadBalancer, externalIPs: [9.9.9.9]}\nstatus: {loadBalancer: {ingress: [{hostname: \
          lb.example}, {ip: 1.1.1.1}]}}",
            false,
            "
NAME   TYPE           CLUSTER-IP   EXTERNAL-IP                  PORT(S)   AGE
x      LoadBalancer   <none>       1.1.1.1,lb.example,9.9.9.9   <none>    3d2h",
        ),
        (
            "",
            "Service",
            "spec: {type: LoadBalancer}",
            false,
            "
NAME   TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE
x      LoadBalancer   <none>       <pending>     <none>    3d2h",
        ),
        (
            "",
            "Endpoints",
            "subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], ports: [{port: 80}, {port: 81}]}]",
            false,
            "
NAME   ENDPOINTS                                          AGE
x      10.0.0.1:80,[fd00::1]:80,10.0.0.1:81 + 1 more...   3d2h",
        ),
        (
            "",
            "PersistentVolumeClaim",
            "spec: {volumeName: pv1, storageClassName: fast, volumeMode: Filesystem}\nstatus: \
          {phase: Bound, capacity: {storage: 1Gi}, accessModes: [ReadWriteMany, ReadWriteOnce]}",
            true,
            "
NAME   STATUS   VOLUME   CAPACITY   ACCESS MODES   STORAGECLASS   VOLUMEATTRIBUTESCLASS   AGE    VOLUMEMODE
x      Bound    pv1      1Gi        RWO,RWX        fast           <unset>                 3d2h   Filesystem",
        ),
        (
            "",
            "ResourceQuota",
            "status: {hard: {pods: '10', requests.cpu: '4', limits.cpu: '8'}, used: {pods: '2'}}",
            false,
            "
NAME   REQUEST                         LIMIT             AGE
x      pods: 2/10, requests.cpu: 0/4   limits.cpu: 0/8   3d2h",
        ),
        (
            "apps",
            "Deployment",
            "spec: {replicas: 3, selector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: \
          In, values: [e, d]}]}, template: {spec: {containers: [{name: m, image: i}]}}}\nstatus: {readyReplicas: 2, \
          updatedReplicas: 3, availableReplicas: 2}",
            true,
            "
NAME   READY   UP-TO-DATE   AVAILABLE   AGE    CONTAINERS   IMAGES   SELECTOR
x      2/3     3            2           3d2h   m            i        a=b,c in (d,e)",
        ),
        (
            "apps",
            "ReplicaSet",
            "spec: {replicas: 3}\nstatus: {replicas: 2, readyReplicas: 1}",
            false,
            "
NAME   DESIRED   CURRENT   READY   AGE
x      3         2         1       3d2h",
        ),
        (
            "apps",
            "StatefulSet",
            "spec: {replicas: 3}\nstatus: {readyReplicas: 1}",
            false,
            "
NAME   READY   AGE
x      1/3     3d2h",
        ),
        (
            "apps",
            "DaemonSet",
            "status: {desiredNumberScheduled: 5, currentNumberScheduled: 4, numberReady: 3, \
          updatedNumberScheduled: 2, numberAvailable: 1}",
            false,
            "
NAME   DESIRED   CURRENT   READY   UP-TO-DATE   AVAILABLE   NODE SELECTOR   AGE
x      5         4         3       2            1           <none>          3d2h",
        ),
        (
            "batch",
            "CronJob",
            "spec: {schedule: '@daily', suspend: false}\nstatus: {lastScheduleTime: \
          '2024-01-01T00:00:00Z', active: [{name: a}]}",
            false,
            "
NAME   SCHEDULE   TIMEZONE   SUSPEND   ACTIVE   LAST SCHEDULE   AGE
x      @daily     <none>     False     1        24h             3d2h",
        ),
        (
            "networking.k8s.io",
            "Ingress",
            "spec: {ingressClassName: c, tls: [{}], rules: [{host: a}, {host: b}, {host: c}, \
          {host: d}]}\nstatus: {loadBalancer: {ingress: [{ip: 1.1.1.1}]}}",
            false,
            "
NAME   CLASS   HOSTS               ADDRESS   PORTS     AGE
x      c       a,b,c + 1 more...   1.1.1.1   80, 443   3d2h",
        ),
        (
            "networking.k8s.io",
            "IngressClass",
            "spec: {controller: c, parameters: {apiGroup: g.io, kind: K, name: p}}",
            false,
            "
NAME   CONTROLLER   PARAMETERS   AGE
x      c            K.g.io/p     3d2h",
        ),
        (
            "networking.k8s.io",
            "NetworkPolicy",
            "spec: {podSelector: {}}",
            false,
            "
NAME   POD-SELECTOR   AGE
x      <none>         3d2h",
        ),
    ];
    for (group, kind, fields, wide, expected) in cases {
        check(found(group, kind), &[&format!("{AGED}\n{fields}")], *wide, expected);
    }
}

#[test]
fn every_kind_has_as_many_cells_as_columns() {
    for resource in builtin::resources() {
        let table = render(resource, [&json!({})], json!({}), IncludeObject::None, true, now());
        let columns = table["columnDefinitions"].as_array().unwrap();
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns.len(), "{}", resource.kind);
        assert!(columns.iter().all(|column| column["description"].is_string()), "{}", resource.kind);
    }
}

fn custom(columns: &str) -> std::sync::Arc<Resource> {
    let crd = yaml(&format!(
        "spec: {{group: example.com, names: {{kind: Db, plural: dbs}}, versions: [{{name: v1, served: true, storage: true, \
         schema: {{openAPIV3Schema: {{type: object}}}}, additionalPrinterColumns: {columns}}}]}}"
    ));
    crd::resources(&crd).remove(0)
}

#[test]
fn a_crd_without_columns_shows_the_age() {
    let expected = "
NAME   AGE
x      3d2h
z";
    check(&custom("[]"), &[AGED, "metadata: {name: z}"], true, expected);
    let table = render(&custom("[]"), [&json!({})], json!({}), IncludeObject::None, true, now());
    assert_eq!(table["columnDefinitions"][1]["type"], "date");
}

/// Type of the column, value, cell.
#[test]
fn cells_of_custom_objects_have_the_type_of_their_column() {
    let object = json!({"metadata": {"annotations": {"a.b/c": "esc"}}, "spec": {
        "text": "a\nb", "int": 3, "float": 1.5, "big": 1e21, "large": 1_234_567.5, "small": 0.000_000_1, "yes": true,
        "map": {"z": 1, "a": ["<b>"]}, "null": null, "time": "2024-01-01T23:00:00Z", "later": "2030-01-01T00:00:00Z",
        "noTime": "soon", "empty": "", "list": [{"n": "1", "v": "one"}, {"n": "2", "v": "two"}],
    }});
    for (kind, path, expected) in [
        ("string", ".spec.text", json!("a\nb")),
        ("string", ".spec.int", json!("3")),
        ("string", ".spec.float", json!("1.5")),
        ("string", ".spec.big", json!("1e+21")),
        ("string", ".spec.large", json!("1.2345675e+06")),
        ("string", ".spec.small", json!("1e-07")),
        ("string", ".spec.yes", json!("true")),
        ("string", ".spec.map", json!("{\"a\":[\"\\u003cb\\u003e\"],\"z\":1}")),
        ("string", ".spec.null", json!("<no value>")),
        ("string", ".spec.missing", Value::Null),
        ("string", ".spec.text.deeper", Value::Null),
        ("string", ".metadata.annotations.a\\.b/c", json!("esc")),
        ("string", ".spec.list[*].n", json!("1")),
        ("string", ".spec.list[7].n", Value::Null),
        ("string", ".spec.list[?(@.n==\"2\")].v", json!("two")),
        ("integer", ".spec.int", json!(3)),
        ("integer", ".spec.float", json!(1)),
        ("integer", ".spec.text", Value::Null),
        ("number", ".spec.int", json!(3)),
        ("number", ".spec.float", json!(1.5)),
        ("number", ".spec.yes", Value::Null),
        ("boolean", ".spec.yes", json!(true)),
        ("boolean", ".spec.text", Value::Null),
        ("date", ".spec.time", json!("60m")),
        ("date", ".spec.later", json!("<invalid>")),
        ("date", ".spec.noTime", json!("<invalid>")),
        ("date", ".spec.empty", json!("<unknown>")),
        ("date", ".spec.int", Value::Null),
        ("date", ".spec.missing", Value::Null),
    ] {
        let resource = custom(&json!([{"name": "C", "type": kind, "jsonPath": path}]).to_string());
        let table = render(&resource, [&object], json!({}), IncludeObject::None, true, now());
        assert_eq!(table["rows"][0]["cells"][1], expected, "{kind} {path}");
    }
}

#[test]
fn columns_of_a_crd_keep_what_it_says_of_them() {
    let resource = custom(
        "[{name: Size, type: string, jsonPath: .spec.size, priority: 1}, {name: Count, type: integer, format: int32, \
         description: How many, jsonPath: .spec.n}]",
    );
    let table = render(&resource, [], json!({"resourceVersion": "7"}), IncludeObject::None, true, now());
    let columns = &table["columnDefinitions"];
    assert_eq!(
        columns[1],
        json!({"name": "Size", "type": "string", "format": "", "priority": 1,
            "description": "Custom resource definition column (in JSONPath format): .spec.size"})
    );
    assert_eq!(
        columns[2],
        json!({"name": "Count", "type": "integer", "format": "int32", "priority": 0, "description": "How many"})
    );
    assert_eq!((&table["metadata"]["resourceVersion"], &table["rows"]), (&json!("7"), &json!([])));
}

#[test]
fn rows_carry_what_was_asked_for() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}});
    let shown = |include| {
        let table = render(found("", "ConfigMap"), [&object], json!({}), include, false, now());
        assert_eq!(table["columnDefinitions"], Value::Null);
        table["rows"][0].get("object").cloned()
    };
    assert_eq!(shown(IncludeObject::None), Some(Value::Null));
    let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "x"}});
    assert_eq!(shown(IncludeObject::Metadata), Some(partial));
    assert_eq!(shown(IncludeObject::Object), Some(object.clone()));
    assert_eq!(IncludeObject::parse(None), Some(IncludeObject::Metadata));
    assert_eq!(IncludeObject::parse(Some("Everything")), None);
}
