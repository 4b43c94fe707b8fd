//! What the admin listener answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

/// Makes the snapshot's JSON.
pub(crate) type Source = Arc<dyn Fn() -> serde_json::Result<Vec<u8>> + Send + Sync>;

pub(crate) fn router(source: Source) -> Router {
    Router::new()
        .route("/v1/admin/snapshot", get(snapshot))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "no_such_route", "there is GET /v1/admin/snapshot") })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route answers GET")
        })
        .with_state(source)
}

async fn snapshot(State(source): State<Source>) -> Response {
    match source() {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "worker_died", &error.to_string()),
    }
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let document = json!({
        "type": format!("urn:plimsoll:problem:{code}"),
        "title": code.replace('_', " "),
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], document.to_string()).into_response()
}
