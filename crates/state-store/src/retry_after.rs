//! Servers that ask to be left alone: how they say it, and how it is heeded.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::error::Trouble;

/// The longest that a server is left alone because it asks for that.
const QUIET_MAX: Duration = Duration::from_secs(300);

/// Reads a header `Retry-After`: seconds, or a point in time by the clock of the server, which its header `Date` tells.
pub(crate) fn parse(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or_else(SystemTime::now);
    Some(at.duration_since(now).unwrap_or_default())
}

/// Until when a server is left alone, and what it said. Whoever comes meanwhile is told that.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Option<(Instant, String)>);

impl Quiet {
    /// # Errors
    /// What the server said, as long as that holds.
    pub(crate) fn keep(&self) -> Result<(), Trouble> {
        let Some((until, reason)) = &self.0 else { return Ok(()) };
        match until.checked_duration_since(Instant::now()) {
            Some(rest) if !rest.is_zero() => Err(Trouble::Busy { reason: reason.clone(), retry_after: rest }),
            _ => Ok(()),
        }
    }

    /// Notes it if that is what the trouble is.
    pub(crate) fn heed(&mut self, trouble: &Trouble) {
        if let Trouble::Busy { reason, retry_after } = trouble {
            self.0 = Some((Instant::now() + (*retry_after).min(QUIET_MAX), reason.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_is_left_alone_for_as_long_as_it_asks_and_not_for_ever() {
        let mut quiet = Quiet::default();
        let busy = |seconds| Trouble::Busy { reason: "slow".into(), retry_after: Duration::from_secs(seconds) };
        quiet.heed(&Trouble::NotFound);
        assert_eq!(quiet.keep(), Ok(()));
        quiet.heed(&busy(7));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(quiet.keep(), Err(busy(4)));
        // Being told so is no new request.
        quiet.heed(&quiet.keep().expect_err("busy"));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(quiet.keep(), Ok(()));
        quiet.heed(&busy(1_000_000));
        tokio::time::advance(QUIET_MAX).await;
        assert_eq!(quiet.keep(), Ok(()));
    }
}
