//! An event from a file: a `CloudEvent` as JSON, or a file of HTTP requests as editors send them.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request};

use crate::cli::ServeSettings;
use crate::endpoint::Body;
use crate::event::Event;
use crate::event::content_mode;
use crate::job_config::problem::cited;

/// What would be posted to the service.
#[derive(Debug, Clone)]
pub(crate) struct EventRequest {
    /// From the line `### name`.
    pub(crate) name: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// All requests of a file, or what is wrong with it.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<EventRequest>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned())?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err("the file is empty, expected a CloudEvent as JSON, or HTTP requests".into());
    }
    if text.trim_start().starts_with(['{', '[']) {
        let batch = text.trim_start().starts_with('[');
        let media_type = if batch {
            "cloudevents-batch+json"
        } else {
            "cloudevents+json"
        };
        let value = HeaderValue::from_str(&format!("application/{media_type}"));
        let headers = value.map(|value| HeaderMap::from_iter([(CONTENT_TYPE, value)]));
        return Ok(vec![EventRequest {
            name: None,
            headers: headers.unwrap_or_default(),
            body: text.as_bytes().to_vec(),
        }]);
    }
    requests(text)
}

/// Requests in the form of RFC 2616, as the REST clients of editors take them: each begins at a line with
/// `###`, comments begin with `#` or `//`,
/// variables with `@`.
fn requests(text: &str) -> Result<Vec<EventRequest>, String> {
    let mut requests = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    let mut name = None;
    while let Some((number, line)) = lines.next() {
        let line = line.trim_end();
        if let Some(title) = line.strip_prefix("###") {
            name = Some(title.trim().to_owned()).filter(|name| !name.is_empty());
            continue;
        }
        let is_comment = line.starts_with(['#', '@']) || line.starts_with("//");
        if line.trim().is_empty() || is_comment {
            continue;
        }
        expect_post(line).map_err(|error| format!("line {}: {error}", number + 1))?;
        let mut headers = HeaderMap::new();
        while let Some((number, line)) = lines.next_if(|(_, line)| !line.starts_with("###")) {
            if line.trim().is_empty() {
                break;
            }
            let (key, value) =
                header(line).map_err(|error| format!("line {}: {error}", number + 1))?;
            headers.append(key, value);
        }
        let mut body = String::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.starts_with("###")) {
            body.push_str(line);
            body.push('\n');
        }
        requests.push(EventRequest {
            name: name.take(),
            headers,
            body: body.trim().as_bytes().to_vec(),
        });
    }
    if requests.is_empty() {
        return Err("the file has no request".into());
    }
    Ok(requests)
}

fn expect_post(line: &str) -> Result<(), String> {
    let method = line.split_whitespace().next().unwrap_or_default();
    if method == Method::POST.as_str() {
        return Ok(());
    }
    Err(format!(
        "`{}` is no request that posts an event, expected one such as `POST \
         http://localhost:8080/ HTTP/1.1`, or a CloudEvent as JSON",
        cited(line)
    ))
}

fn header(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = line.split_once(':').and_then(|(name, value)| {
        let name = name.trim().parse::<HeaderName>().ok()?;
        Some((name, HeaderValue::from_str(value.trim()).ok()?))
    });
    parsed.ok_or_else(|| {
        format!(
            "`{}` is no header, expected one such as `Content-Type: application/cloudevents+json`, \
                 and an empty line before the body",
            cited(line)
        )
    })
}

/// The request that is meant: by its number from 1, by its name or the beginning of it, or the first one.
pub(crate) fn choose(
    requests: Vec<EventRequest>,
    which: Option<&str>,
) -> Result<EventRequest, String> {
    let names: Vec<String> = requests
        .iter()
        .enumerate()
        .map(|(index, request)| {
            let name = request.name.as_deref().unwrap_or("without a name");
            format!("{} ({name})", index + 1)
        })
        .collect();
    let place = match which {
        None => Some(0),
        Some("") => None,
        Some(which) => match which.parse::<usize>() {
            Ok(number) => number
                .checked_sub(1)
                .filter(|index| *index < requests.len()),
            Err(_) => requests.iter().position(|request| {
                request
                    .name
                    .as_deref()
                    .is_some_and(|name| name.starts_with(which))
            }),
        },
    };
    let chosen = place.and_then(|place| requests.into_iter().nth(place));
    chosen.ok_or_else(|| {
        format!(
            "there is no request `{}`, the file has {}",
            which.unwrap_or_default(),
            names.join(", ")
        )
    })
}

impl EventRequest {
    /// All events of the request that are valid.
    pub(crate) fn events(&self) -> Vec<Event> {
        let events = content_mode::decode(&self.headers, &self.body).unwrap_or_default();
        events.into_iter().flatten().collect()
    }

    pub(crate) fn into_http(self) -> Request<Body> {
        let mut request = Request::new(Body::from(self.body));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = self.headers;
        // The body is whole here, whatever its sender said.
        for header in [CONTENT_LENGTH, TRANSFER_ENCODING] {
            request.headers_mut().remove(header);
        }
        request
    }

    /// The one event of the request.
    pub(crate) fn event(&self) -> Result<Event, String> {
        if self.body.len() > ServeSettings::MAX_BODY_BYTES as usize {
            return Err(format!(
                "the event takes {} bytes, the service takes events of at most {}",
                self.body.len(),
                ServeSettings::MAX_BODY_BYTES
            ));
        }
        let mut events =
            content_mode::decode(&self.headers, &self.body).map_err(|error| error.to_string())?;
        match (events.pop(), events.len()) {
            (Some(event), 0) => event.map_err(|error| error.to_string()),
            (None, _) => Err("it holds no event".into()),
            (Some(_), others) => Err(format!(
                "it holds {} events, expected one (`dev` takes batches)",
                others + 1
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# A comment\r\n@host = x\n";

    fn told(text: &str) -> String {
        match read(text.as_bytes()) {
            Ok(requests) => requests
                .iter()
                .map(|request| {
                    format!(
                        "{:?} {} {}",
                        request.name,
                        request.headers.len(),
                        String::from_utf8_lossy(&request.body)
                    )
                })
                .collect::<Vec<_>>()
                .join("\n"),
            Err(error) => error,
        }
    }

    #[test]
    fn requests_are_read_as_editors_send_them() {
        let report = [
            told("{\"a\": 1}"),
            told("### One\nPOST http://x/ HTTP/1.1\r\nContent-Type: a/b\r\n\r\n{\r\n}\r\n\n###\nPOST http://x/\n\nx\n"),
            told("POST http://x/\nA: b\n\n{}"),
            told(""),
            told("### a\n"),
            told(FILE),
            told("GET http://x/"),
            told("POST http://x/\n{}"),
        ]
        .join("\n");
        insta::assert_snapshot!(report, @r#"
        None 1 {"a": 1}
        Some("One") 1 {
        }
        None 0 x
        None 1 {}
        the file is empty, expected a CloudEvent as JSON, or HTTP requests
        the file has no request
        the file has no request
        line 1: `GET http://x/` is no request that posts an event, expected one such as `POST http://localhost:8080/ HTTP/1.1`, or a CloudEvent as JSON
        line 2: `{}` is no header, expected one such as `Content-Type: application/cloudevents+json`, and an empty line before the body
        "#);
    }

    #[test]
    fn a_request_is_chosen_by_number_or_name() {
        let requests = || read(b"### One\nPOST /\n\n1\n### Two\nPOST /\n\n2\n").unwrap();
        let body = |which| {
            choose(requests(), which).map(|request| String::from_utf8(request.body).unwrap())
        };
        assert_eq!(body(None).unwrap(), "1");
        assert_eq!(body(Some("2")).unwrap(), "2");
        assert_eq!(body(Some("Tw")).unwrap(), "2");
        assert_eq!(
            body(Some("3")).unwrap_err(),
            "there is no request `3`, the file has 1 (One), 2 (Two)"
        );
    }
}
