//! Tokens for an app of GitHub: the app signs who it is, and gets a token that serves as password for an hour.
//!
//! A token is kept until shortly before it expires. A server that says how long to leave it alone is left alone.

mod api;
mod jwt;

use std::time::{Duration, SystemTime};

use http::Uri;
use tokio::time::Instant;

use self::jwt::Key;
use crate::config::{GithubApp, Proxies, Secret, Tls};
use crate::connection::{Connector, Trust};
use crate::error::Trouble;

/// The user that a token belongs to.
pub(super) const USER: &str = "x-access-token";
/// How long before its end a token is replaced, so that it does not expire under way.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// How long a server is left alone at most, whatever it says.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// The tokens of one installation.
pub(super) struct Tokens {
    app: GithubApp,
    key: Key,
    endpoint: Uri,
    tls: Tls,
    token: Option<Token>,
    /// Until when the server is not asked, and why.
    pause: Option<(Instant, Trouble)>,
}

struct Token {
    text: Secret,
    renew_at: Instant,
    uses: u64,
}

impl Tokens {
    /// Nothing is asked for yet. `url` is that of the repository.
    pub(super) fn new(app: GithubApp, url: &str, tls: Tls) -> Result<Self, Trouble> {
        let key = Key::parse(app.private_key.expose()).map_err(Trouble::AppKey)?;
        let endpoint = format!("{}/app/installations/{}/access_tokens", api_base(url), app.installation_id);
        let endpoint = endpoint.parse().map_err(|_| Trouble::Config("the URL names no usable host".to_owned()))?;
        Ok(Self { app, key, endpoint, tls, token: None, pause: None })
    }

    /// Returns a token, a new one if the present one is about to expire.
    pub(super) async fn get(&mut self) -> Result<&Secret, Trouble> {
        let now = Instant::now();
        if self.token.as_ref().is_none_or(|token| token.renew_at <= now) {
            self.token = None;
            self.token = Some(self.request(now).await?);
        }
        let token = self.token.as_mut().expect("it was just requested");
        token.uses += 1;
        Ok(&token.text)
    }

    /// Returns the present token.
    pub(super) fn present(&self) -> Option<&Secret> {
        self.token.as_ref().map(|token| &token.text)
    }

    /// Drops a token that was refused. Returns whether another one may fare better: not if it was new.
    pub(super) fn drop_refused(&mut self) -> bool {
        self.token.take().is_some_and(|token| token.uses > 1)
    }

    async fn request(&mut self, now: Instant) -> Result<Token, Trouble> {
        if let Some((_, trouble)) = self.pause.as_ref().filter(|(until, _)| now < *until) {
            return Err(trouble.clone());
        }
        self.pause = None;
        let time = SystemTime::now();
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let jwt = self.key.sign(self.app.app_id, seconds).map_err(Trouble::AppKey)?;
        // By way of the proxy that the environment names.
        let connector = Connector::new(&self.tls, Trust::Beside, &Proxies::of_process(), self.app.deadline)?;
        match api::exchange(&connector, &self.endpoint, &jwt, self.app.deadline).await? {
            Ok(granted) => {
                let usable = usable_for(granted.expires_at, time, self.app.token_lifetime);
                Ok(Token { text: granted.token, renew_at: now + usable, uses: 0 })
            }
            Err(refusal) => {
                let retry_after = refusal.pause.map(|pause| pause.min(PAUSE_MAX));
                let trouble = Trouble::AppToken { reason: refusal.reason, remedy: refusal.remedy, retry_after };
                self.pause = retry_after.map(|pause| (now + pause, trouble.clone()));
                Err(trouble)
            }
        }
    }
}

/// Returns where the API of a repository's host is.
fn api_base(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
    match host.as_str() {
        "github.com" | "www.github.com" => "https://api.github.com".to_owned(),
        host if host.ends_with(".ghe.com") => format!("https://api.{host}"),
        _ => format!("{scheme}://{authority}/api/v3"),
    }
}

/// Returns for how long a token serves: until the margin before its end, which is at most half of its life.
fn usable_for(expires_at: Option<SystemTime>, now: SystemTime, lifetime: Duration) -> Duration {
    let Some(expires_at) = expires_at else { return lifetime };
    let left = expires_at.duration_since(now).unwrap_or_default();
    lifetime.min(left - MARGIN.min(left / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_where_the_repository_is() {
        for (url, base) in [
            ("https://github.com/team/state.git", "https://api.github.com"),
            ("https://GitHub.com/team/state", "https://api.github.com"),
            ("https://www.github.com/team/state", "https://api.github.com"),
            ("https://octo.ghe.com/team/state.git", "https://api.octo.ghe.com"),
            ("https://ghe.com/team/state.git", "https://ghe.com/api/v3"),
            ("https://git.example.org/team/state.git", "https://git.example.org/api/v3"),
            ("https://git.example.org:8443/x", "https://git.example.org:8443/api/v3"),
            ("https://github.com.example.org/x", "https://github.com.example.org/api/v3"),
            ("https://notgithub.com/x", "https://notgithub.com/api/v3"),
            ("http://localhost:3000/x", "http://localhost:3000/api/v3"),
        ] {
            assert_eq!(api_base(url), base, "{url}");
        }
    }

    #[test]
    fn a_token_is_replaced_before_it_expires_and_no_later_than_the_limit() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let minutes = |count: u64| Duration::from_secs(60 * count);
        for (left, limit, expected) in [
            (Some(60), 60, minutes(55)),
            (Some(60), 10, minutes(10)),
            (Some(6), 60, minutes(3)),
            (Some(0), 60, Duration::ZERO),
            (None, 60, minutes(60)),
        ] {
            assert_eq!(usable_for(left.map(|left| now + minutes(left)), now, minutes(limit)), expected, "{left:?}");
        }
        assert_eq!(usable_for(Some(now - minutes(1)), now, minutes(60)), Duration::ZERO);
    }
}
