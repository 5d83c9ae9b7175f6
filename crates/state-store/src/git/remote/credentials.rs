//! What is sent to prove who we are, as it is needed: a password that is known, or a token that is asked for.

use super::super::github_app::{self, Tokens};
use super::Url;
use crate::config::{Auth, GitConfig, Secret};
use crate::error::Trouble;

/// Where user name and password come from.
pub(super) enum Credentials {
    /// None are sent.
    None,
    /// They are known.
    Fixed(String, Secret),
    /// The password is a token with an end.
    App(Box<Tokens>),
}

impl Credentials {
    pub(super) fn new(config: &GitConfig, url: &Url) -> Result<Self, Trouble> {
        let fixed = |username: &str, password: &Secret| Self::Fixed(username.to_owned(), password.clone());
        Ok(match &config.auth {
            Auth::Basic { username, password } if !password.is_empty() => fixed(username, password),
            Auth::None => url.credentials().map_or(Self::None, |(username, password)| fixed(username, password)),
            Auth::GithubApp(app) if url.local().is_none() => {
                Self::App(Box::new(Tokens::new(app.clone(), &url.shown(), config.tls.clone())?))
            }
            _ => Self::None,
        })
    }

    /// Returns user name and password for the next exchange.
    pub(super) async fn get(&mut self) -> Result<Option<(&str, &Secret)>, Trouble> {
        if let Self::App(tokens) = self {
            tokens.get().await?;
        }
        Ok(self.present())
    }

    /// Returns what was sent last.
    pub(super) fn present(&self) -> Option<(&str, &Secret)> {
        match self {
            Self::None => None,
            Self::Fixed(username, password) => Some((username, password)),
            Self::App(tokens) => tokens.present().map(|token| (github_app::USER, token)),
        }
    }

    /// Forgets what was refused. Returns whether another attempt is made with something else.
    pub(super) fn drop_refused(&mut self) -> bool {
        match self {
            Self::None | Self::Fixed(..) => false,
            Self::App(tokens) => tokens.drop_refused(),
        }
    }
}
