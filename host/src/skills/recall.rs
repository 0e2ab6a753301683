//! A request that may have left and of which no reply is here: before anything else leaves, the instance is asked what
//! became of it.

use super::{
    CallFailure,
    run::{Run, Sent, waiting, wire_id},
    store::{self, RequestRow},
};
use crate::problem::{Problem, RETRY_AFTER_DEFAULT};
use std::time::Duration;
use tsunami_openclaw::bridge::{Advice, ExecuteError, RecallRequest};

/// A journal remembers a call for 7 days. Nobody is asked about one that was sent longer ago than this.
const REMEMBERED_FOR: Duration = Duration::from_secs(6 * 24 * 3600);
/// On top of the time that the request itself may take, which a recall waits for.
const RECALL_GRACE: Duration = Duration::from_secs(5);

impl Run<'_> {
    /// What became of the request: its reply, or what stops the call. `None` where it is to be sent: it never left, or
    /// does not act. Then it has another id, so that a late sending under the old one changes nothing.
    pub(super) async fn recall(
        &mut self,
        open: &RequestRow,
        acts: bool,
    ) -> Result<Option<Sent>, Problem> {
        let sent_ago = Duration::try_from_secs_f64(open.sent_seconds_ago).unwrap_or_default();
        if sent_ago > REMEMBERED_FOR {
            let days = sent_ago.as_secs() / (24 * 3600);
            let why = format!("it was sent {days} days ago, and what became of it is forgotten");
            return self.nobody_knows(open, acts, why).await;
        }
        if let Some(stopped) = self.reach().await? {
            return Ok(Some(Sent::Stop(stopped)));
        }
        let request = RecallRequest {
            call_id: wire_id(
                &self.row,
                open.attempt.unwrap_or(self.row.attempts),
                open.seq,
            ),
            digest: open.digest.clone(),
            journal_id: open.journal_id.clone(),
            sent_ago,
        };
        let seconds = self.app.config().skills.request_timeout_seconds;
        let deadline = Duration::from_secs(seconds.into()) + RECALL_GRACE;
        let error = match self.client()?.recall(&request, deadline).await {
            // Masked when it was written down, by who knew the credentials.
            Ok(reply) => return Ok(Some(self.take_reply(open.seq, &reply.reply, &[], acts))),
            Err(error) => error,
        };
        match (error.advice(), &error) {
            (_, ExecuteError::NotSent { .. }) => self.send_anew(open).await,
            (Advice::SendAgain | Advice::AskAgain, _) => {
                tracing::info!(call = %self.row.id, %error, "instance cannot say what became of a request; the call waits");
                Ok(Some(Sent::Stop(waiting(
                    "the OpenClaw instance".into(),
                    RETRY_AFTER_DEFAULT,
                ))))
            }
            (Advice::AskPerson | Advice::GiveUp, _) => {
                self.nobody_knows(open, acts, error.to_string()).await
            }
        }
    }

    async fn nobody_knows(
        &mut self,
        open: &RequestRow,
        acts: bool,
        why: String,
    ) -> Result<Option<Sent>, Problem> {
        if !acts {
            return self.send_anew(open).await;
        }
        let cause = CallFailure::new("outcome_unknown", why);
        self.unknown(cause).await.map(Sent::Stop).map(Some)
    }

    async fn send_anew(&mut self, open: &RequestRow) -> Result<Option<Sent>, Problem> {
        let Some(mut tx) = self.writing().await? else {
            return self.overtaken().await.map(Sent::Stop).map(Some);
        };
        let ours = store::send_anew(&mut tx, self.row.turn(), open.seq).await?;
        self.written(tx).await?;
        if !ours {
            return self.overtaken().await.map(Sent::Stop).map(Some);
        }
        self.row.attempts += 1;
        self.is_open = false;
        Ok(None)
    }
}
