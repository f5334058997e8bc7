//! Reads an HTTP request as CloudEvents 1.0: structured mode, binary mode and batches.
//!
//! Liberal where Keptn's distributors are (see the tests): media types in any case and with
//! parameters, a structured event sent as `application/json`, no `datacontenttype`, empty optional
//! attributes. The SDK judges the attributes; `data` is taken out before, since the SDK refuses JSON
//! data under some media types and keeps the JSON of a binary-mode request as bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::trace::TraceContext;
use super::{Event, InvalidEvent};

/// Each event of one request, good or bad.
pub(crate) type Events = Vec<Result<Event, InvalidEvent>>;

/// A request that holds no CloudEvents at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("{0}")]
    UnsupportedMediaType(String),
    #[error(transparent)]
    Invalid(#[from] InvalidEvent),
}

/// Decodes the body of a request. An event that does not say what trace it is part of is of the request's.
pub(crate) fn decode(headers: &HeaderMap, body: &[u8]) -> Result<Events, DecodeError> {
    let mut events = events(headers, body)?;
    for event in events.iter_mut().flatten() {
        let trace = &mut event.envelope.trace;
        *trace = trace.take().or_else(|| trace_of_request(headers));
    }
    Ok(events)
}

fn trace_of_request(headers: &HeaderMap) -> Option<TraceContext> {
    // Several cannot be told apart; a state may be spread over several.
    let mut parents = headers.get_all("traceparent").iter();
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        return None;
    }
    let states = headers.get_all("tracestate").iter();
    let states: Result<Vec<&str>, _> = states.map(HeaderValue::to_str).collect();
    TraceContext::parse(
        parent,
        states.ok().map(|states| states.join(",")).as_deref(),
    )
}

fn events(headers: &HeaderMap, body: &[u8]) -> Result<Events, DecodeError> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let media_type = content_type
        .as_deref()
        .map(|text| media_type(text).to_ascii_lowercase());
    match media_type.as_deref() {
        Some("application/cloudevents+json") => Ok(vec![structured(body)]),
        Some("application/cloudevents-batch+json") => batch(body),
        _ if headers.contains_key("ce-specversion") || headers.contains_key("ce-id") => {
            Ok(vec![binary(headers, content_type.as_deref(), body)])
        }
        Some("application/json" | "text/json") if starts_with(body, b'[') => batch(body),
        Some("application/json" | "text/json") => Ok(vec![structured(body)]),
        found => Err(DecodeError::UnsupportedMediaType(format!(
            "content type {} is no CloudEvent, expected `application/cloudevents+json`, \
             `application/cloudevents-batch+json`, or `ce-` headers with any content type",
            found.map_or("(none)".into(), |found| format!("`{found}`")),
        ))),
    }
}

fn media_type(content_type: &str) -> &str {
    content_type
        .split(';')
        .next()
        .unwrap_or(content_type)
        .trim()
}

fn starts_with(body: &[u8], first: u8) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&first)
}

fn batch(body: &[u8]) -> Result<Events, DecodeError> {
    let items: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| InvalidEvent::new(format!("the batch is not a JSON array: {error}")))?;
    Ok(items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            structured(item.get().as_bytes())
                .map_err(|error| InvalidEvent::new(format!("event {index} of the batch: {error}")))
        })
        .collect())
}

fn structured(body: &[u8]) -> Result<Event, InvalidEvent> {
    let mut attributes: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| InvalidEvent::new(format!("the body is not a JSON object: {error}")))?;
    if let Some(encoded) = attributes.remove("data_base64") {
        let bytes = encoded
            .as_str()
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or_else(|| InvalidEvent::new("`data_base64` is not base64"))?;
        let content_type = attributes.get("datacontenttype").and_then(Value::as_str);
        let data = data(content_type, &bytes)?;
        attributes.insert("data".into(), data);
    }
    event(attributes)
}

fn binary(
    headers: &HeaderMap,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Event, InvalidEvent> {
    let mut attributes = Map::new();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix("ce-") else {
            continue;
        };
        let value = percent_decoded(value.as_bytes()).ok_or_else(|| {
            InvalidEvent::new(format!("header `ce-{name}` is not percent-encoded UTF-8"))
        })?;
        if attributes
            .insert(name.to_owned(), Value::String(value))
            .is_some()
        {
            return Err(InvalidEvent::new(format!(
                "header `ce-{name}` is there twice"
            )));
        }
    }
    if let Some(content_type) = content_type {
        attributes.insert("datacontenttype".into(), content_type.into());
    }
    attributes.insert("data".into(), data(content_type, body)?);
    event(attributes)
}

/// CloudEvents 1.0.1, HTTP binding 3.1.3.2.
fn percent_decoded(text: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            decoded.push(high * 16 + low);
            rest = &after[2..];
        } else {
            decoded.push(*first);
            rest = after;
        }
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16)?.try_into().ok()
}

fn data(content_type: Option<&str>, bytes: &[u8]) -> Result<Value, InvalidEvent> {
    let media_type = content_type.map_or_else(
        || "application/json".to_owned(),
        |text| media_type(text).to_ascii_lowercase(),
    );
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if media_type.ends_with("/json") || media_type.ends_with("+json") {
        return serde_json::from_slice(bytes)
            .map_err(|error| InvalidEvent::new(format!("the data is not JSON: {error}")));
    }
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => Value::String(STANDARD.encode(bytes)),
    })
}

fn event(mut attributes: Map<String, Value>) -> Result<Event, InvalidEvent> {
    attributes.retain(|name, value| name == "data" || !value.is_null());
    // An optional attribute sent empty is an absent one; a reference in `dataschema` is not ours to
    // judge.
    for optional in ["time", "datacontenttype", "dataschema", "subject"] {
        if attributes.get(optional).and_then(Value::as_str) == Some("") {
            attributes.remove(optional);
        }
    }
    match attributes.get("specversion") {
        Some(Value::String(version)) if version == "1.0" => {}
        Some(version) => {
            return Err(InvalidEvent::new(format!(
                "specversion {version} is not supported, expected \"1.0\""
            )));
        }
        None => {
            return Err(InvalidEvent::new(
                "attribute `specversion` is missing, this is no CloudEvent",
            ));
        }
    }
    for (name, value) in &attributes {
        let simple = value.is_string() || value.is_boolean() || value.is_i64();
        if name != "data" && !simple {
            return Err(InvalidEvent::new(format!(
                "attribute `{name}` is {}, expected a string, a boolean or an integer",
                kind(value)
            )));
        }
    }
    if let Some(Value::String(time)) = attributes.get("time")
        && time.parse::<jiff::Timestamp>().is_err()
    {
        return Err(InvalidEvent::new(format!(
            "attribute `time` is \"{time}\", expected RFC 3339 such as \"2021-05-01T10:00:00Z\""
        )));
    }
    let judged: Map<String, Value> = attributes
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "data" | "datacontenttype" | "dataschema"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let event = Event::from_attributes(attributes)?;
    serde_json::from_value::<cloudevents::Event>(Value::Object(judged))
        .map_err(|error| InvalidEvent::new(format!("invalid attribute: {error}")))?;
    Ok(event)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number that is no 64-bit integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn one(pairs: &[(&'static str, &'static str)], body: &str) -> Result<Event, String> {
        let mut events =
            decode(&headers(pairs), body.as_bytes()).map_err(|error| error.to_string())?;
        assert_eq!(events.len(), 1);
        events.remove(0).map_err(|error| error.to_string())
    }

    const STRUCTURED: &[(&str, &str)] = &[("content-type", "application/cloudevents+json")];

    const MINIMAL: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#;

    #[test]
    fn media_types_are_read_in_any_case_and_with_parameters() {
        for content_type in [
            "application/cloudevents+json",
            "Application/CloudEvents+JSON",
            "application/cloudevents+json; charset=utf-8",
            "application/json",
            "application/json;charset=UTF-8",
        ] {
            let event = one(&[("content-type", content_type)], MINIMAL).unwrap();
            assert_eq!(event.envelope.id, "1", "{content_type}");
        }
    }

    #[test]
    fn the_event_of_the_first_readme_is_read() {
        let event = one(
            STRUCTURED,
            include_str!("../tests/events/first-readme.json"),
        )
        .unwrap();
        assert_snapshot!(serde_json::to_string(&event.envelope).unwrap(), @r#"{"id":"c4d3a334-6cb9-4e8c-a372-7e0b45942f53","source":"source-service","type":"sh.keptn.event.test.triggered","shkeptncontext":"a3e5f16d-8888-4720-82c7-6995062905c1-xyz","scope":{"project":"sockshop","stage":"dev","service":"carts"},"labels":{}}"#);
        assert_eq!(event.document["contenttype"], "application/json");
    }

    #[test]
    fn the_events_that_keptn_was_seen_to_send_are_read() {
        for (name, text) in [
            ("0.8.2", include_str!("../tests/events/keptn-0.8.2.json")),
            (
                "0.8.2 polled",
                include_str!("../tests/events/keptn-0.8.2-polled.json"),
            ),
            ("0.19.3", include_str!("../tests/events/keptn-0.19.3.json")),
            (
                "1.4.5 remote",
                include_str!("../tests/events/keptn-1.4.5-remote.json"),
            ),
        ] {
            let event = one(STRUCTURED, text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(event.envelope.event_type.is_triggered(), "{name}");
            assert_eq!(event.envelope.scope.stage.as_deref(), Some("dev"), "{name}");
        }
    }

    #[test]
    fn an_empty_extension_is_an_absent_one() {
        let event = one(
            STRUCTURED,
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","time":"","triggeredid":"","gitcommitid":"","shkeptnspecversion":""}"#,
        )
        .unwrap();
        assert_eq!(event.envelope.git_commit_id, None);
        assert_eq!(event.envelope.keptn_spec_version, None);
        assert_eq!(event.document["triggeredid"], "");
    }

    #[test]
    fn binary_mode_gives_the_same_event_as_structured_mode() {
        let binary = one(
            &[
                ("content-type", "application/json; charset=utf-8"),
                ("ce-specversion", "1.0"),
                ("ce-id", "1"),
                ("ce-source", "s"),
                ("ce-type", "sh.keptn.event.test.triggered"),
                ("ce-shkeptncontext", "caf%C3%A9"),
            ],
            r#"{"project":"p","n":1234567}"#,
        )
        .unwrap();
        let structured = one(
            STRUCTURED,
            r#"{"specversion":"1.0","id":"1","source":"s","type":"sh.keptn.event.test.triggered","datacontenttype":"application/json; charset=utf-8","shkeptncontext":"café","data":{"project":"p","n":1234567}}"#,
        )
        .unwrap();
        assert_eq!(binary, structured);
    }

    #[test]
    fn json_data_is_read_whatever_its_content_type_says() {
        for content_type in [
            "text/plain",
            "Application/JSON",
            "application/vnd.x+json; a=b",
        ] {
            let body = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t",
                "datacontenttype": content_type, "data": {"project": "p"}});
            let event = one(STRUCTURED, &body.to_string()).unwrap();
            assert_eq!(event.envelope.scope.project.as_deref(), Some("p"));
        }
        let body = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t",
            "data_base64": STANDARD.encode(r#"{"project":"p"}"#)});
        let event = one(STRUCTURED, &body.to_string()).unwrap();
        assert_eq!(event.envelope.scope.project.as_deref(), Some("p"));
    }

    #[test]
    fn a_batch_gives_each_event_its_own_verdict() {
        let body = format!("[{MINIMAL}, {{\"specversion\":\"1.0\"}}, {MINIMAL}]");
        let events = decode(
            &headers(&[("content-type", "application/cloudevents-batch+json")]),
            body.as_bytes(),
        )
        .unwrap();
        let verdicts: Vec<_> = events
            .iter()
            .map(|event| match event {
                Ok(event) => event.envelope.id.clone(),
                Err(error) => error.to_string(),
            })
            .collect();
        assert_snapshot!(verdicts.join("\n"), @r"
        1
        event 1 of the batch: attribute `id` is missing, a CloudEvent has `specversion`, `id`, `source` and `type`
        1
        ");
    }

    #[test]
    fn a_bad_event_is_refused_with_its_reason() {
        let attribute = |name: &str, value: Value| {
            let mut body = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t"});
            body[name] = value;
            one(STRUCTURED, &body.to_string()).unwrap_err()
        };
        let report = [
            one(STRUCTURED, "").unwrap_err(),
            one(STRUCTURED, "[1]").unwrap_err(),
            one(STRUCTURED, r#"{"id":"1"}"#).unwrap_err(),
            one(&[("content-type", "text/plain")], "hello").unwrap_err(),
            one(&[], MINIMAL).unwrap_err(),
            attribute("specversion", "0.3".into()),
            attribute("id", "".into()),
            attribute("type", 5.into()),
            attribute("time", "yesterday".into()),
            attribute("ext", json!({"a": 1})),
            attribute("ext", json!(1.5)),
            attribute("data", json!({"project": 5})),
            attribute("data", json!({"service": "../x"})),
        ]
        .join("\n");
        assert_snapshot!(report, @r#"
        the body is not a JSON object: EOF while parsing a value at line 1 column 0
        the body is not a JSON object: invalid type: sequence, expected a map at line 1 column 0
        attribute `specversion` is missing, this is no CloudEvent
        content type `text/plain` is no CloudEvent, expected `application/cloudevents+json`, `application/cloudevents-batch+json`, or `ce-` headers with any content type
        content type (none) is no CloudEvent, expected `application/cloudevents+json`, `application/cloudevents-batch+json`, or `ce-` headers with any content type
        specversion "0.3" is not supported, expected "1.0"
        attribute `id` is empty, a CloudEvent needs a value there
        attribute `type` is 5, expected a string
        attribute `time` is "yesterday", expected RFC 3339 such as "2021-05-01T10:00:00Z"
        attribute `ext` is an object, expected a string, a boolean or an integer
        attribute `ext` is a number that is no 64-bit integer, expected a string, a boolean or an integer
        `data.project` is 5, expected a string
        `data.service` is "../x", expected a name without slashes, `%` and control characters
        "#);
    }

    #[test]
    fn a_trace_context_is_read_of_the_event_or_else_of_the_request() {
        const OF_EVENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        const OF_REQUEST: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let structured = |extensions: &str, headers: &[(&'static str, &'static str)]| {
            let body = MINIMAL.replace('}', &format!("{extensions}}}"));
            one(&[STRUCTURED, headers].concat(), &body)
        };
        let binary = |headers: &[(&'static str, &'static str)]| {
            let event = [
                ("ce-specversion", "1.0"),
                ("ce-id", "1"),
                ("ce-source", "s"),
                ("ce-type", "t"),
            ];
            one(&[&event, headers].concat(), "")
        };
        let extensions = |parent: &str| format!(r#","traceparent":"{parent}","tracestate":"a=1""#);
        let rows = [
            structured("", &[]),
            structured(&extensions(OF_EVENT), &[("traceparent", OF_REQUEST)]),
            structured(
                &extensions("x"),
                &[("traceparent", OF_REQUEST), ("tracestate", "b=2")],
            ),
            structured(&extensions(""), &[]),
            structured(r#","traceparent":5"#, &[]),
            structured("", &[("traceparent", "y"), ("tracestate", "b=2")]),
            binary(&[("ce-traceparent", OF_EVENT), ("ce-tracestate", "a=1")]),
            binary(&[
                ("ce-traceparent", "z"),
                ("traceparent", OF_REQUEST),
                ("tracestate", "?"),
            ]),
        ];
        let told = rows.map(|event| match event.unwrap().envelope.trace {
            None => "none".to_owned(),
            Some(trace) => format!("{} {:?}", trace.traceparent(), trace.tracestate()),
        });
        assert_snapshot!(told.join("\n"), @r#"
        none
        00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 Some("a=1")
        00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00 Some("b=2")
        none
        none
        none
        00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 Some("a=1")
        00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00 None
        "#);
    }

    #[test]
    fn a_header_that_is_there_twice_is_refused() {
        let mut twice = headers(&[("ce-specversion", "1.0"), ("ce-id", "1")]);
        twice.append("ce-id", "2".parse().unwrap());
        let events = decode(&twice, b"").unwrap();
        assert_eq!(
            events[0].as_ref().unwrap_err().to_string(),
            "header `ce-id` is there twice"
        );
    }
}
