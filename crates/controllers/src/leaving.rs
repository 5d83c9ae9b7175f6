//! What objects have at sites that they have left is removed there. Whoever cannot go before that is done, and waits for long,
//! says so.

use std::sync::Arc;

use kratix_core::object::ObjectKey;
use kratix_core::plan::{Next, Plan};
use kratix_core::state_store::SILENCE;
use kratix_core::work_placement::{Cleaned, Leftover, Site};
use kratix_state_store::Handle;
use kube::Resource;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::context::Context;
use crate::gates::{self, Gates};
use crate::state_store::{self, Registry, Replaced};

/// An object that has left sites, as one pass sees it.
pub(crate) trait Leaver {
    type Object: Resource<DynamicType = ()> + DeserializeOwned;
    type Finding;

    /// Returns what is to be removed.
    fn leftovers(&self) -> Vec<Leftover>;

    /// Returns the plan that says what is waited for at a site, and what the store there does not answer.
    fn clearing(&self, site: &Site, silence: Option<&str>) -> Plan<Self::Finding>;

    /// Returns the place of the present store.
    fn place(&self) -> Option<&str>;

    fn object(&mut self) -> &mut Arc<Self::Object>;
}

/// The writers that a pass may need.
pub(crate) struct Writers {
    /// Of the present store.
    pub(crate) present: Option<Handle>,
    /// Of sites that were left, as far as they can be reached.
    pub(crate) former: Vec<(Site, Handle)>,
}

/// Removes what was left; bounds how many wait for one store.
pub(crate) struct Leaving {
    cx: Arc<Context>,
    stores: Arc<Registry>,
    gates: Gates,
}

impl Leaving {
    /// Whoever leaves a store meets nobody who is at `gates`, which bring the same objects back.
    pub(crate) fn new(cx: &Arc<Context>, stores: &Arc<Registry>, gates: &Gates) -> Self {
        Self { cx: Arc::clone(cx), stores: Arc::clone(stores), gates: gates.apart() }
    }

    /// Gives up the place of an object that has nothing to remove any more.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.gates.leave(key, &[]);
    }

    /// Removes what is left at sites that were left, where that is possible. Also returns when it is time for those who were turned
    /// away to say so.
    pub(crate) async fn clean<L: Leaver>(
        &self,
        key: &ObjectKey,
        leaver: &mut L,
        writers: &Writers,
    ) -> Result<(Vec<(Site, Cleaned)>, Next), Replaced> {
        let place = leaver.place().map(str::to_owned);
        let (mut outcomes, mut next) = (Vec::new(), Next::OnChange);
        let leftovers = leaver.leftovers();
        let stores: Vec<_> = leftovers.iter().map(|leftover| &leftover.site.store).collect();
        self.gates.leave(key, &stores);
        for leftover in leftovers {
            let Some((_, former)) = writers.former.iter().find(|(site, _)| site.is(&leftover.site)) else { continue };
            let deadline = Instant::now() + SILENCE;
            // Who is turned away is called back. A store that does not answer holds up those alone who have left it.
            let _pass = match self.gates.enter_one(&leftover.site.store, key) {
                Ok(pass) => pass,
                Err(_) if leftover.patience.is_some() => continue,
                Err(waits) if waits < SILENCE => {
                    next = next.sooner(Next::After(SILENCE - waits));
                    continue;
                }
                Err(_) => {
                    self.tell(leaver, &leftover.site, former).await;
                    continue;
                }
            };
            let present = place.as_deref().zip(writers.present.as_ref()).filter(|_| leftover.needs_proof);
            let removal = self.stores.clean((&leftover.site, former), present, leftover.change, leftover.patience);
            let outcome = match leftover.patience {
                Some(_) => removal.await,
                None => gates::telling(removal, deadline, self.tell(leaver, &leftover.site, former)).await,
            };
            outcomes.extend(outcome?.map(|outcome| (leftover.site, outcome)));
        }
        Ok((outcomes, next))
    }

    async fn tell<L: Leaver>(&self, leaver: &mut L, site: &Site, writer: &Handle) {
        let waiting = leaver.clearing(site, state_store::silence(writer).as_deref());
        gates::tell(&self.cx, &waiting, leaver.object()).await;
    }
}
