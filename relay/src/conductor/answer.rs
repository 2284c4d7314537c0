//! Answers in the making: JSON, XML, HTML, text.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use relay_wire::text::escape_html;
use serde::Serialize;

/// Bytes of a type.
pub(super) fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A sentence.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response {
    typed(status, "text/plain; charset=utf-8", text.into())
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => typed(status, "application/json; charset=utf-8", bytes),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Why not, as JSON.
pub(super) fn problem(status: StatusCode, why: &str) -> Response {
    json(status, &serde_json::json!({ "error": why }))
}

/// XML, as `/admin` answers it.
pub(super) fn xml(body: &str) -> Response {
    typed(
        StatusCode::OK,
        "text/xml; charset=utf-8",
        format!("<?xml version=\"1.0\"?>\n{body}\n"),
    )
}

/// `text` for XML, in elements and quoted attributes: as for HTML, and without the two code points that
/// XML 1.0 forbids.
pub(super) fn escape_xml(text: &str) -> String {
    escape_html(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

/// A page of the kind that Icecast shows for errors.
pub(super) fn error_page(status: StatusCode, why: &str) -> Response {
    let code = status.as_u16();
    let body = format!(
        "<!DOCTYPE html><html><head><title>Error {code}</title></head><body><b>{code} - {}</b></body></html>\n",
        escape_html(why)
    );
    typed(status, "text/html; charset=utf-8", body)
}

/// The same answer with one more field.
pub(super) fn with(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
