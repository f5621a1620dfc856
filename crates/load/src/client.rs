//! The requests of one flow, until it has ended.

use std::time::Duration;

use ::settings::{Secret, SecretFile, SettingError};
use node::error::Error;
use reqwest::{Method, StatusCode, header::HeaderMap};
use tokio::time::{Instant, sleep};

use crate::{
    Settings,
    crash::Inspection,
    plan::{End, Plan, Verdict},
    tally::Tally,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The gateway answers after a minute at the latest, unless it was told otherwise.
const TIMEOUT: Duration = Duration::from_secs(90);

/// The pause before a request is repeated that got no answer.
const PAUSE: Duration = Duration::from_millis(250);

/// The pauses between two looks at a flow that runs: the first one, which doubles, and the longest.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// A client of the gateway.
pub struct Client {
    http: reqwest::Client,
    gateway: String,
    token: Option<SecretFile<Secret>>,
}

impl Client {
    /// A client of the gateway.
    ///
    /// # Errors
    /// The system has no certificates, and the gateway's address needs them; or the token cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let gateway = &*settings.gateway;
        let open = |path: &String| {
            SecretFile::open(path, first_token)
                .map_err(|reason| SettingError::new("--token-file", path, reason))
        };
        let token = settings.token_file.as_ref().map(open).transpose()?;
        let mut http =
            reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT);
        if gateway.starts_with("http://") {
            // The system may have no certificates.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|error| Error::Other(text(&error)))?;
        Ok(Self { http, gateway: gateway.to_owned(), token })
    }

    /// Asks whether the gateway is ready, and accepts the token.
    ///
    /// # Errors
    /// It is not there, not ready, or asks for another token.
    pub async fn check(&self) -> Result<(), Error> {
        let reason = match self.send(Method::GET, "/readyz").await {
            Ok((StatusCode::OK, ..)) => return self.check_token().await,
            Ok((_, _, body)) => body.trim().to_owned(),
            Err(error) => text(&error),
        };
        Err(Error::Other(format!("the gateway at {} is not ready: {reason}", self.shown())))
    }

    async fn check_token(&self) -> Result<(), Error> {
        let refused = match self.send(Method::GET, "/stats").await {
            Ok((StatusCode::UNAUTHORIZED, ..)) => match &self.token {
                Some(file) => format!("refuses the token of {}", file.path()),
                None => "asks for a token; name a file with one by --token-file".to_owned(),
            },
            _ => return Ok(()),
        };
        Err(Error::Other(format!("the gateway at {} {refused}", self.shown())))
    }

    /// Where the gateway is.
    fn shown(&self) -> String {
        settings::without_credentials(&self.gateway)
    }

    /// Starts a flow and sees it to its end. `since`: when it was due.
    pub async fn flow(&self, plan: &Plan, since: Instant, tally: &Tally) {
        let end = self.answer(plan, tally).await;
        tally.answered(plan, since.elapsed());
        let end = match end {
            Some(end) => end,
            None => self.end(plan, tally).await,
        };
        tally.ended(plan, end);
    }

    /// Sends the request that starts a flow until there is a final answer. None: it was started,
    /// and nobody waits for its end.
    async fn answer(&self, plan: &Plan, tally: &Tally) -> Option<End> {
        loop {
            let pause = match self.send(Method::POST, &plan.path()).await {
                Ok((status, headers, body)) => match plan.judge(status, &headers, &body) {
                    Verdict::Ended(end) => return Some(end),
                    Verdict::Running if plan.is_detached() => return None,
                    // It takes longer than a request waits.
                    Verdict::Running => Duration::ZERO,
                    Verdict::Again(pause) => pause.unwrap_or(PAUSE),
                },
                Err(_) => PAUSE,
            };
            tally.retried(plan);
            sleep(pause).await;
        }
    }

    /// Looks at a flow until it has ended.
    async fn end(&self, plan: &Plan, tally: &Tally) -> End {
        let mut look = FIRST_LOOK;
        loop {
            sleep(look).await;
            look = (2 * look).min(LONGEST_LOOK);
            match self.send(Method::GET, &plan.inspection()).await {
                Ok((status, headers, body)) => match plan.judge_end(status, &headers, &body) {
                    Verdict::Ended(end) => return end,
                    Verdict::Running => {}
                    Verdict::Again(_) => tally.retried(plan),
                },
                Err(_) => tally.retried(plan),
            }
        }
    }

    /// What `GET /flows/{id}` shows of a flow; none if there is no such answer.
    pub async fn inspect(&self, plan: &Plan) -> Option<Inspection> {
        let (status, _, body) = self.send(Method::GET, &plan.inspection()).await.ok()?;
        serde_json::from_str(&body).ok().filter(|_| status == StatusCode::OK)
    }

    /// Asks the gateway to crash a process: the status of the answer, if there is one.
    pub async fn crash(&self, route: &str) -> Option<StatusCode> {
        self.send(Method::POST, route).await.ok().map(|(status, ..)| status)
    }

    /// Sends a request, and reads its answer to the end.
    async fn send(
        &self,
        method: Method,
        path: &str,
    ) -> reqwest::Result<(StatusCode, HeaderMap, String)> {
        let mut request = self.http.request(method, format!("{}{path}", self.gateway));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.get().expose());
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok((status, headers, answer.text().await?))
    }
}

/// The first token of a file, which may be the gateway's own.
fn first_token(text: &str) -> Result<Secret, String> {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let mut tokens = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    ::settings::token(tokens.next().unwrap_or_default())
}

/// An error with what it comes from.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
