use crate::codec::{CodecKeys, data_converter};
use serde_json::Value;
use std::{str::FromStr, sync::Arc, time::Duration};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, GrpcCompression, UntypedSignal,
    UntypedWorkflow, Url, WorkflowCancelOptions, WorkflowDescribeOptions, WorkflowExecutionStatus,
    WorkflowFetchHistoryOptions, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
    WorkflowSignalOptions, WorkflowStartOptions,
    errors::{WorkflowInteractionError, WorkflowStartError},
    tonic::{Code, Status},
};
use temporalio_common::{
    Priority,
    data_converters::{DataConverter, PayloadConverter, RawValue},
};
use tokio::sync::OnceCell;

/// The longest that one call to the server may take.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// The longest that connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Where the Temporal server is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://host:port`, or `https://` for TLS.
    pub url: String,
    pub namespace: String,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// Trying again later may help.
    #[error("Temporal cannot be reached: {0}")]
    Unavailable(String),
    #[error("there is no such workflow")]
    NotFound,
    #[error("the workflow has ended already")]
    AlreadyClosed,
    /// It can be started when that one has ended.
    #[error("a workflow with this id still runs")]
    StillRunning,
    /// Trying the same again will not help.
    #[error("Temporal refused: {0}")]
    Refused(String),
}

/// A workflow to start.
#[derive(Clone, Debug)]
pub struct StartRequest {
    workflow_type: String,
    workflow_id: String,
    task_queue: String,
    input: Value,
    follows: bool,
    tenant: Option<String>,
}

impl StartRequest {
    pub fn new(workflow_type: &str, workflow_id: &str, task_queue: &str, input: Value) -> Self {
        Self {
            workflow_type: workflow_type.into(),
            workflow_id: workflow_id.into(),
            task_queue: task_queue.into(),
            input,
            follows: false,
            tenant: None,
        }
    }

    /// It is this tenant's, by its id of at most 64 bytes: where many workflows and activities wait, each tenant's are
    /// taken in turn (Temporal's fairness keys; the server needs `matching.enableFairness`).
    pub fn of(self, tenant: impl std::fmt::Display) -> Self {
        Self {
            tenant: Some(tenant.to_string()),
            ..self
        }
    }

    /// Others with this id may have run before; while one does, starting answers [`DurableError::StillRunning`].
    pub fn following(self) -> Self {
        Self {
            follows: true,
            ..self
        }
    }
}

/// What starting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    Now,
    /// One with this id was started before. Whether it still runs, only [`StartRequest::following`] says: it does.
    Before,
}

/// What the server knows of a workflow.
#[derive(Clone, Debug)]
pub struct Description {
    /// As Temporal names it: `Running`, `Completed`, `Failed`, ...
    pub status: String,
    pub history_length: usize,
    has_ended: bool,
}

impl Description {
    /// Nothing of it goes on, and it can be told nothing.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }
}

/// The connection; cheap to clone.
#[derive(Clone)]
pub struct Durable(Arc<Inner>);

struct Inner {
    settings: Settings,
    converter: DataConverter,
    client: OnceCell<Client>,
}

impl Durable {
    /// Connects when first needed, not now.
    pub fn new(settings: Settings, keys: CodecKeys) -> Self {
        Self(Arc::new(Inner {
            settings,
            converter: data_converter(keys),
            client: OnceCell::new(),
        }))
    }

    pub(crate) async fn client(&self) -> Result<&Client, DurableError> {
        self.0.client.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Client, DurableError> {
        let Settings { url, namespace } = &self.0.settings;
        let target = Url::from_str(url)
            .map_err(|e| DurableError::Refused(format!("`{url}` is no URL: {e}")))?;
        let mut options = ConnectionOptions::new(target)
            .identity("tsunami".to_owned())
            .build();
        options.connect_timeout = Some(CONNECT_DEADLINE);
        // Compressing for a server on this machine costs more than it saves.
        options.grpc_compression = GrpcCompression::None;
        let connection = bounded(Connection::connect(options))
            .await?
            .map_err(|e| DurableError::Unavailable(e.to_string()))?;
        let options = ClientOptions::new(namespace.as_str())
            .data_converter(self.0.converter.clone())
            .build();
        Client::new(connection, options).map_err(|e| DurableError::Refused(e.to_string()))
    }

    /// Starts a workflow; one with the same id is started once, for ever, unless it is [`StartRequest::following`].
    pub async fn start(&self, request: StartRequest) -> Result<Started, DurableError> {
        let reuse = if request.follows {
            WorkflowIdReusePolicy::AllowDuplicate
        } else {
            WorkflowIdReusePolicy::RejectDuplicate
        };
        let mut priority = Priority::default();
        priority.fairness_key = request.tenant;
        let options = WorkflowStartOptions::new(request.task_queue, request.workflow_id)
            .id_reuse_policy(reuse)
            .id_conflict_policy(WorkflowIdConflictPolicy::Fail)
            .priority(priority)
            .build();
        let client = self.client().await?;
        match bounded(client.start_workflow(
            UntypedWorkflow::new(request.workflow_type),
            raw(&request.input),
            options,
        ))
        .await?
        {
            Ok(_) => Ok(Started::Now),
            Err(WorkflowStartError::AlreadyStarted { .. }) if request.follows => {
                Err(DurableError::StillRunning)
            }
            Err(WorkflowStartError::AlreadyStarted { .. }) => Ok(Started::Before),
            Err(WorkflowStartError::Rpc(status)) => Err(from_status(&status)),
            Err(other) => Err(DurableError::Refused(other.to_string())),
        }
    }

    pub async fn signal(
        &self,
        workflow_id: &str,
        name: &str,
        input: Value,
    ) -> Result<(), DurableError> {
        let handle = self
            .client()
            .await?
            .get_workflow_handle::<UntypedWorkflow>(workflow_id);
        bounded(handle.signal(
            UntypedSignal::new(name),
            raw(&input),
            WorkflowSignalOptions::default(),
        ))
        .await?
        .map_err(from_interaction)
    }

    /// Asks a workflow to end; it may still do what it must.
    pub async fn cancel(&self, workflow_id: &str, reason: &str) -> Result<(), DurableError> {
        let handle = self
            .client()
            .await?
            .get_workflow_handle::<UntypedWorkflow>(workflow_id);
        let options = WorkflowCancelOptions::builder().reason(reason).build();
        bounded(handle.cancel(options))
            .await?
            .map_err(from_interaction)
    }

    pub async fn describe(&self, workflow_id: &str) -> Result<Option<Description>, DurableError> {
        let handle = self
            .client()
            .await?
            .get_workflow_handle::<UntypedWorkflow>(workflow_id);
        match bounded(handle.describe(WorkflowDescribeOptions::default()))
            .await?
            .map_err(from_interaction)
        {
            Ok(found) => Ok(Some(Description {
                status: format!("{:?}", found.status()),
                history_length: found.history_length(),
                has_ended: matches!(
                    found.status(),
                    WorkflowExecutionStatus::Completed
                        | WorkflowExecutionStatus::Failed
                        | WorkflowExecutionStatus::Canceled
                        | WorkflowExecutionStatus::Terminated
                        | WorkflowExecutionStatus::TimedOut
                ),
            })),
            Err(DurableError::NotFound) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The whole history as the server holds it, payloads encrypted: for replay tests and for searches.
    pub async fn history_json(&self, workflow_id: &str) -> Result<Vec<u8>, DurableError> {
        let handle = self
            .client()
            .await?
            .get_workflow_handle::<UntypedWorkflow>(workflow_id);
        let history = handle
            .fetch_history(WorkflowFetchHistoryOptions::default())
            .to_json()
            .await;
        history.map_err(|e| DurableError::Refused(e.to_string()))
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<(), DurableError> {
        // A workflow that is not there is an answer too.
        self.describe("tsunami-ping").await.map(|_| ())
    }
}

impl std::fmt::Debug for Durable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Durable({})", self.0.settings.url)
    }
}

fn raw(value: &Value) -> RawValue {
    RawValue::from_value(value, &PayloadConverter::default())
}

async fn bounded<T>(call: impl Future<Output = T>) -> Result<T, DurableError> {
    tokio::time::timeout(CALL_DEADLINE, call)
        .await
        .map_err(|_| {
            DurableError::Unavailable(format!("no answer within {} s", CALL_DEADLINE.as_secs()))
        })
}

fn from_interaction(error: WorkflowInteractionError) -> DurableError {
    match error {
        WorkflowInteractionError::NotFound(status)
            if status.message().contains("already completed") =>
        {
            DurableError::AlreadyClosed
        }
        WorkflowInteractionError::NotFound(_) => DurableError::NotFound,
        WorkflowInteractionError::Rpc(status) => from_status(&status),
        other => DurableError::Refused(other.to_string()),
    }
}

fn from_status(status: &Status) -> DurableError {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Unauthenticated => DurableError::Refused(status.message().to_owned()),
        _ => DurableError::Unavailable(status.message().to_owned()),
    }
}
