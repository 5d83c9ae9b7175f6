//! `kratix status`: whether the embedded platform is running, where, and which state stores keep it waiting.

use std::process::ExitCode;

use kratix_platform::data_dir;
use serde_json::json;

use crate::args;
use crate::failure::Failure;
use crate::printer::{Format, Printer};
use crate::stores::{self, Store};

/// Prints what the platform of a data directory says about itself; exit code 1 when there is none.
pub(crate) async fn run(printer: &Printer, status: &args::Status) -> Result<ExitCode, Failure> {
    let root = status.data_dir.path();
    let is_held = data_dir::is_held(&root);
    let running = data_dir::running(&root).filter(|_| is_held);
    if status.kubeconfig_path {
        let running = running.ok_or_else(|| {
            Failure::new(format!("nothing is running in {}", root.display())).hint("kratix up --detach")
        })?;
        printer.data(running.kubeconfig.display());
        return Ok(ExitCode::SUCCESS);
    }
    let stores = match &running {
        Some(running) => Some(stores::list(&running.kubeconfig).await),
        None => None,
    };
    if printer.format == Format::Json {
        let mut said = json!({ "dataDir": root, "running": running });
        match stores {
            Some(Ok(stores)) => said["stores"] = json!(stores),
            Some(Err(error)) => said["storesError"] = json!(error),
            None => {}
        }
        printer.json(&said);
    } else if let Some(running) = &running {
        printer.data(format_args!("running    process {}", running.pid));
        printer.data(format_args!("platform   {}", running.platform));
        printer.data(format_args!("worker-1   {}", running.worker));
        printer.data(format_args!("kubeconfig {}", running.kubeconfig.display()));
        printer.data(format_args!("data       {}", root.display()));
        if let Some(stores) = &stores {
            lines(stores).iter().for_each(|line| printer.data(line));
        }
    } else if is_held {
        printer.data(format_args!("starting or stopping (data directory {})", root.display()));
    } else {
        printer.data(format_args!("not running (data directory {})", root.display()));
        printer.talk("next: kratix up --detach");
    }
    Ok(if running.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many stores are ready, and a line for each that is not.
fn lines(stores: &Result<Vec<Store>, String>) -> Vec<String> {
    let stores = match stores {
        Ok(stores) => stores,
        Err(error) => return vec![format!("stores     unknown: {error}")],
    };
    let ready = stores.iter().filter(|store| store.cause.is_none()).count();
    let first = match stores.len() {
        0 => "stores     none".to_owned(),
        all if all == ready => format!("stores     {ready} ready"),
        all => format!("stores     {ready} of {all} ready"),
    };
    let told = |store: &Store| {
        let cause = store.cause.as_ref()?;
        Some(format!("           {}/{}: {cause}", store.kind, store.name))
    };
    std::iter::once(first).chain(stores.iter().filter_map(told)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_counted_and_those_that_are_not_ready_are_named_with_their_cause() {
        let store = |name: &str, cause: Option<&str>| Store {
            kind: "GitStateStore",
            name: name.into(),
            cause: cause.map(str::to_owned),
        };
        assert_eq!(lines(&Ok(vec![])), ["stores     none"]);
        assert_eq!(lines(&Ok(vec![store("a", None), store("b", None)])), ["stores     2 ready"]);
        assert_eq!(
            lines(&Ok(vec![store("a", None), store("b", Some("no"))])),
            ["stores     1 of 2 ready", "           GitStateStore/b: no"]
        );
        assert_eq!(lines(&Err("no answer".into())), ["stores     unknown: no answer"]);
    }
}
