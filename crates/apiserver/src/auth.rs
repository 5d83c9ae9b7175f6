//! Who asks (tokens) and what they may do (roles).

mod defaults;
mod grants;
mod roles;
mod tokens;

pub(crate) use defaults::default_roles;
pub(crate) use roles::{Attributes, Roles};
pub(crate) use tokens::{Bound, ISSUER, Tokens};

use embedded_apimachinery::{Qualified, Status};

use crate::core::Core;
use crate::failure::Failure;
use crate::user::{MASTERS, User};

impl Core {
    /// Refuses what no role allows.
    pub(crate) fn authorize(&self, user: &User, attributes: &Attributes) -> Result<(), Failure> {
        if self.allows(user, attributes) {
            return Ok(());
        }
        let what = Qualified::new(&attributes.group, &attributes.resource);
        Err(Status::forbidden(what, &attributes.name, &attributes.refusal(user)).into())
    }

    pub(crate) fn allows(&self, user: &User, attributes: &Attributes) -> bool {
        user.is_in(MASTERS) || self.roles.allow(&self.store, user, attributes)
    }
}
