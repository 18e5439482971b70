//! Small requests with a body, such as receipts.

use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, Utc};
use ureq::Agent;
use ureq::http::{HeaderMap, Method, header};

use super::{HttpFetch, ProxyUrl, is_hang_up, log, text};
use crate::fetch::error::{FetchError, LONGEST};
use tidegate_model::text::public_url;

/// The maximum length of an answer, in bytes.
const ANSWER: u64 = 64 * 1024;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status of HTTP.
    pub status: u16,
    /// The delay of `Retry-After`, at most a day.
    pub retry_after: Option<Duration>,
    /// The body; empty if it is longer than 64 KiB.
    pub body: Vec<u8>,
}

/// The pause that a server asks for, at most a day: in seconds, or up to an instant, which is read against the server's own clock.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, &header::RETRY_AFTER)?;
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit()) {
        // What does not fit is longer than all that fits.
        return Some(value.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST));
    }
    let now = text(headers, &header::DATE).and_then(instant).unwrap_or_else(Utc::now);
    instant(value)?.signed_duration_since(now).to_std().ok().map(|pause| pause.min(LONGEST))
}

/// Reads the dates of RFC 9110, 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT` and `Sun Nov  6 08:49:37 1994`.
fn instant(text: &str) -> Option<DateTime<Utc>> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<_> = text.split([' ', ',', '-', ':']).filter(|word| !word.is_empty()).collect();
    let ([_, month, day, hour, minute, second, year] | [_, day, month, year, hour, minute, second, "GMT"]) = *words
    else {
        return None;
    };
    let number = |text: &str| text.parse::<u32>().ok();
    // Two digits are of a year that is not far from now; this device's clock may be.
    let year = match number(year)? {
        year @ 0..70 => year + 2000,
        year @ 70..100 => year + 1900,
        year => year,
    };
    let month = u32::try_from(MONTHS.find(month)? / 3).ok()?.checked_add(1)?;
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, number(day)?)?;
    Some(date.and_hms_opt(number(hour)?, number(minute)?, number(second)?)?.and_utc())
}

impl HttpFetch {
    /// Sends a body, and does not follow redirects.
    ///
    /// The `headers` are sent only to this URL. Errors contain the URL without its query, which may contain a secret.
    ///
    /// # Errors
    ///
    /// If there is no answer. An error status is an answer.
    pub fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answered, FetchError> {
        self.send_by(self.agent(url), method, url, headers, body)
    }

    /// The same without the device's certificate, so that only the body identifies the device.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub fn send_nameless(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answered, FetchError> {
        self.send_by(self.nameless(url), method, url, headers, body)
    }

    fn send_by(
        &self,
        agent: Result<&Agent, FetchError>,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answered, FetchError> {
        let shown = &public_url(url);
        self.patience.renew(self.options.connect_timeout * 2 + self.options.response_timeout * 2);
        let agent = agent.map_err(|e| match e {
            FetchError::Authorities { reason, .. } => FetchError::Authorities { url: shown.clone(), reason },
            other => other,
        })?;
        let proxy = self.proxies.of(url)?;
        let call = || {
            let request = headers.iter().fold(
                ureq::http::Request::builder().method(method).uri(url).header(header::ACCEPT_ENCODING, "identity"),
                |request, (name, value)| request.header(*name, *value),
            );
            agent.run(agent.configure_request(request.body(body)?).proxy(proxy.map(ProxyUrl::for_ureq)).build())
        };
        let started = Instant::now();
        let answer = match call() {
            // A server may close an idle connection at the moment of its next use.
            Err(ureq::Error::Io(e)) if is_hang_up(&e) => call(),
            result => result,
        };
        log(method.as_str(), url, answer.as_ref().ok(), started);
        let response = answer.map_err(|e| self.unanswered(shown, &e, proxy))?;
        let (parts, body) = response.into_parts();
        let mut bytes = Vec::new();
        let mut reader = self.paced(body, shown, ANSWER);
        if let Err(e) = std::io::Read::read_to_end(&mut reader, &mut bytes) {
            match FetchError::from_io(shown, e) {
                FetchError::TooLong { .. } => bytes.clear(),
                slow_or_broken => return Err(slow_or_broken),
            }
        }
        Ok(Answered { status: parts.status.as_u16(), retry_after: retry_after(&parts.headers), body: bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_an_instant() {
        let of = |value: &str, date: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            headers.insert(header::DATE, date.parse().unwrap());
            retry_after(&headers).map(|pause| pause.as_secs())
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(of("3600", date), Some(3600));
        for (instant, pause) in [
            ("Sun, 06 Nov 1994 09:49:39 GMT", 3602),
            ("Sunday, 06-Nov-94 09:49:39 GMT", 3602),
            ("Sun Nov  6 09:49:39 1994", 3602),
            ("Mon, 07 Nov 1994 08:49:39 GMT", 86_400),
            ("Thursday, 01-Jan-26 00:00:00 GMT", 86_400),
            ("86401", 86_400),
            ("18446744073709551616", 86_400),
            ("99999999999999999999999999", 86_400),
        ] {
            assert_eq!(of(instant, date), Some(pause), "{instant}");
            assert_eq!(of(instant, "Sunday, 06-Nov-94 08:49:37 GMT"), Some(pause), "{instant}");
            assert_eq!(of(instant, "Sun Nov  6 08:49:37 1994"), Some(pause), "{instant}");
        }
        for wrong in [
            "",
            "-1",
            "soon",
            "Sat, 05 Nov 1994 08:49:37 GMT",
            "Mon, 07 Nov",
            "Mon, 99 Xxx 1994 08:49:37 GMT",
            "Mon, 07 Nov 4294967295 08:49:37 GMT",
            "Mon, 07 Nov 1994 08:49:37 CET",
            "+5",
            "\u{e9}\u{e9}\u{e9}",
        ] {
            assert_eq!(of(wrong, date), None, "{wrong}");
        }
    }
}
