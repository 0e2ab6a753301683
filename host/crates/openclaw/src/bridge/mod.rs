//! The gateway methods of the openclaw-bridge plugin, typed.
//!
//! [`Client::execute`] has an instance perform one HTTP exchange. The bridge keeps a journal by call id,
//! so sending a call again never acts twice: it gives the first answer, or says that nobody can know.

mod error;
mod reply;
mod request;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::{Advice, ExecuteError};
pub use reply::{ExecuteReply, HttpReply};
pub use request::{ExecuteRequest, HttpRequest, PrivateNetwork, RecallRequest};

use crate::{client::Client, error::CallError};

/// The method that performs an exchange.
pub const EXECUTE: &str = "servicetsunami.execute";
/// The method that says what became of a call.
pub const RECALL: &str = "servicetsunami.recall";
/// The method that tells how the bridge is.
pub const STATUS: &str = "servicetsunami.status";
/// What the bridge performs at once; it refuses more, so the client queues them.
pub const MAX_CONCURRENT_EXECUTIONS: usize = 64;
/// What the journal, the gateway and the network may take on top of the exchange's own time.
const EXECUTE_GRACE: Duration = Duration::from_secs(5);

/// How a bridge is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the plugin.
    pub bridge_version: String,
    /// Belongs to the journal's disk. Another one means that earlier calls were forgotten.
    pub journal_id: String,
    /// Another one after each start of the instance.
    pub boot_id: String,
    /// Calls under way.
    pub in_flight: u32,
    /// Calls remembered.
    pub journal_entries: u64,
}

impl Client {
    /// Has the instance perform one HTTP exchange, at most once for its call id.
    ///
    /// # Errors
    /// [`ExecuteError::advice`] says what may be done about each.
    pub async fn execute(&self, request: &ExecuteRequest) -> Result<ExecuteReply, ExecuteError> {
        let _slot = self.execution_slot().await?;
        let deadline = request.timeout + EXECUTE_GRACE;
        match self
            .call_sized(EXECUTE, request, request.request.size_hint(), deadline)
            .await
        {
            Ok(answer) => Ok(answer.parse()?),
            Err(CallError::Refused(refusal)) => Err(error::refused(*refusal)),
            Err(error) => Err(error.into()),
        }
    }

    /// What became of a call that may have been sent: its answer, which is waited for while it is under way.
    /// Nothing is performed, and after [`ExecuteError::NotSent`] nothing ever will be under this id.
    ///
    /// # Errors
    /// [`ExecuteError::advice`] says what may be done about each.
    pub async fn recall(
        &self,
        request: &RecallRequest,
        deadline: Duration,
    ) -> Result<ExecuteReply, ExecuteError> {
        match self.call(RECALL, request, deadline).await {
            Ok(answer) => Ok(answer.parse()?),
            Err(CallError::Refused(refusal)) => Err(error::refused(*refusal)),
            Err(error) => Err(error.into()),
        }
    }

    /// How the bridge is.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn bridge_status(&self, deadline: Duration) -> Result<Status, CallError> {
        #[derive(Serialize)]
        struct NoParams {}
        self.call(STATUS, NoParams {}, deadline).await?.parse()
    }
}
