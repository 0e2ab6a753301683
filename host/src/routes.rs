//! What can be asked: every slice's routes, and what surrounds them.

use crate::{
    agents,
    app::App,
    caller::foresee_share,
    drain::drain_after,
    extract::Json,
    instances, marketplace, oauth,
    openapi::{ApiDoc, IDEMPOTENCY_KEY, described, header_of},
    pace::Pace,
    plugins, policies,
    problem::{Problem, REQUEST_ID},
    shares::Held,
    skills, tasks, tenants, vault,
};
use axum::{
    Extension, Router,
    body::Bytes,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::{OpenApi, openapi::path::Operation};
use utoipa_axum::router::OpenApiRouter;

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

fn api() -> OpenApiRouter<App> {
    let v1 = OpenApiRouter::new()
        .merge(tenants::http::routes())
        .merge(agents::http::routes())
        .merge(tasks::http::routes())
        .merge(instances::http::routes())
        .merge(plugins::http::routes())
        .merge(marketplace::http::routes())
        .merge(plugins::schema::routes())
        .merge(oauth::http::routes())
        .merge(policies::http::routes())
        .merge(skills::http::routes())
        .merge(vault::http::routes());
    OpenApiRouter::with_openapi(ApiDoc::openapi()).nest("/api/v1", v1)
}

/// The API's description, OpenAPI 3.1.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described(api().into_openapi())
}

/// The paths whose `POST` reads an `Idempotency-Key`.
fn claiming(openapi: &utoipa::openapi::OpenApi) -> HashSet<String> {
    let reads = |operation: &Operation| {
        let name = operation.operation_id.as_deref().unwrap_or_default();
        header_of(name).is_some_and(|(header, _)| header == IDEMPOTENCY_KEY)
    };
    let paths = openapi.paths.paths.iter();
    paths
        .filter(|(_, item)| item.post.as_ref().is_some_and(reads))
        .map(|(path, _)| path.clone())
        .collect()
}

/// The whole API, ready to serve.
pub fn router(app: App) -> Router {
    let (routes, openapi) = api().split_for_parts();
    let openapi = described(openapi);
    let in_flight = usize::try_from(app.config().http.requests_in_flight_max).unwrap_or(usize::MAX);
    let slots = Arc::new(tokio::sync::Semaphore::new(in_flight));
    let bounding = app.clone();
    let claiming = Arc::new(claiming(&openapi));
    let pace = Pace::new(&app.config().http);
    // As bytes, which are shared: what a handler holds may be copied with each connection.
    let description = Bytes::from(json!(openapi).to_string());
    let json = [(header::CONTENT_TYPE, "application/json")];
    routes
        .route(
            "/openapi.json",
            get(move || async move { (json, description) }),
        )
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(
            ServiceBuilder::new()
                .layer(middleware::from_fn(move |request, next| {
                    bound(bounding.clone(), slots.clone(), pace.kept_by(request), next)
                }))
                .layer(middleware::from_fn(move |request, next| {
                    refuse_unread_key(claiming.clone(), request, next)
                })),
        )
        // Whoever asks whether it lives is not told that it is busy.
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(
            ServiceBuilder::new()
                .layer(middleware::from_fn(name_request))
                .layer(middleware::from_fn(drain_after))
                .layer(CatchPanicLayer::custom(panicked)),
        )
        .layer(Extension(Readiness::default()))
        .with_state(app)
}

/// Whether this process lives.
async fn healthz() -> impl IntoResponse {
    Json(json!({ "status": "live" }))
}

/// How long what was found of the database and of Temporal holds: everybody may ask, without a key.
const READINESS_HOLDS: Duration = Duration::from_secs(1);

/// When, and whether the database and Temporal answered.
type Looked = (Instant, [bool; 2]);

/// What was last found. One looks at a time; the others wait for what it finds.
#[derive(Clone, Default)]
struct Readiness(Arc<Mutex<Option<Looked>>>);

impl Readiness {
    async fn look(&self, app: &App) -> [bool; 2] {
        let mut last = self.0.lock().await;
        if let Some((at, found)) = *last
            && at.elapsed() < READINESS_HOLDS
        {
            return found;
        }
        let (database, temporal) = tokio::join!(app.db().ping(), app.durable().ping());
        let found = [database.is_ok(), temporal.is_ok()];
        *last = Some((Instant::now(), found));
        found
    }
}

/// Whether it can serve: what it needs, each with its state.
async fn readyz(State(app): State<App>, Extension(readiness): Extension<Readiness>) -> Response {
    let [database, temporal] = readiness.look(&app).await;
    let ready = database && temporal;
    let state = |ok: bool| if ok { "ok" } else { "unavailable" };
    let body = json!({ "ready": ready, "database": state(database), "temporal": state(temporal) });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

async fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "There is nothing at this path. /openapi.json lists what there is.",
    )
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This path does not take this method. /openapi.json lists what it takes.",
    )
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal(&"a handler panicked").into_response()
}

/// Gives the request an id, which its answer, its problem and its log lines bear.
async fn name_request(request: Request, next: Next) -> Response {
    let id = crate::id::TraceId::fresh().uuid().simple().to_string();
    let span = tracing::info_span!("request", request_id = id, method = %request.method(), path = request.uri().path());
    let served = REQUEST_ID.scope(
        id.clone(),
        tracing::Instrument::instrument(next.run(request), span),
    );
    let mut response = served.await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Serves so many at once, each for so long. (A live stream's answer is given at once, and so not cut off.)
async fn bound(
    app: App,
    slots: Arc<tokio::sync::Semaphore>,
    mut request: Request,
    next: Next,
) -> Response {
    let held = Held::default();
    // First of the tenant's own places, so that one who takes too many takes none of the others'.
    if let Err(problem) = foresee_share(&app, request.headers(), &held).await {
        return problem.into_response();
    }
    let is_admitted = app.request_shares().admit_stranger(&held);
    let slot = is_admitted.then(|| slots.try_acquire().ok()).flatten();
    let Some(_slot) = slot else {
        return Problem::unavailable(
            "The gateway, which serves as many requests as it may at once,",
            Duration::from_secs(1),
        )
        .into_response();
    };
    let is_read = request.method().is_safe();
    let timeout = Duration::from_secs(app.config().http.request_timeout_seconds.into());
    request.extensions_mut().insert(held.clone());
    let served = tokio::time::timeout(timeout, next.run(request)).await;
    held.release();
    match served {
        Ok(response) => response,
        Err(_) if is_read => Problem::unavailable(
            "What this request needs, within its time,",
            Duration::from_secs(5),
        )
        .into_response(),
        // Who is told that nothing was lost would send it again.
        Err(_) => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "request_timeout",
            "The request took longer than it may, and whether it was done is not known. Look before you send it again, or send it with an Idempotency-Key.",
        )
        .into_response(),
    }
}

/// A client that sends an `Idempotency-Key` relies on it: where it would be ignored, it is refused.
async fn refuse_unread_key(
    claiming: Arc<HashSet<String>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    if request.method() == Method::POST
        && request.headers().contains_key(IDEMPOTENCY_KEY)
        && path.is_some_and(|path| !claiming.contains(path.as_str()))
    {
        return Problem::bad_request(
            "idempotency_key_not_read",
            "This operation reads no Idempotency-Key, and would not keep to it. Send the request without one.",
        )
        .into_response();
    }
    next.run(request).await
}
