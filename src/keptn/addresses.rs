//! Where Keptn's configuration service may be. Up to Keptn 0.17 it is called configuration-service, from
//! 0.19 on only resource-service; between them both names lead to it.

use std::fmt;

use reqwest::Url;

const NAMES: [&str; 2] = ["configuration-service", "resource-service"];

/// At least one address; of several the one that answers is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    urls: Vec<Url>,
    origin: Origin,
}

/// Who says that the configuration service is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The operator: what is there may have Keptn's credentials.
    Setting,
    /// Nobody. Inside of the cluster Keptn asks for no credentials, and gets none.
    Default,
}

impl Addresses {
    /// Reads addresses that are separated by commas, each with `url`.
    pub(crate) fn parse(
        text: &str,
        url: impl Fn(&str) -> Result<Url, String>,
    ) -> Result<Self, String> {
        let urls: Result<_, String> = text.split(',').map(|part| url(part.trim())).collect();
        Ok(Self {
            urls: urls?,
            origin: Origin::Setting,
        })
    }

    pub(crate) fn of(url: Url) -> Self {
        Self {
            urls: vec![url],
            origin: Origin::Setting,
        }
    }

    /// In the namespace of Keptn's control plane.
    pub(crate) fn in_the_cluster() -> Self {
        let urls = NAMES.iter().map(|name| format!("http://{name}:8080"));
        Self {
            // Both are addresses.
            urls: urls.filter_map(|url| Url::parse(&url).ok()).collect(),
            origin: Origin::Default,
        }
    }

    /// Through Keptn's gateway, at `api`.
    pub(crate) fn at_the_gateway(api: &Url) -> Self {
        Self {
            urls: NAMES.map(|name| below(api, name)).into(),
            origin: Origin::Setting,
        }
    }

    /// The same through Keptn's gateway, where it is only reached inside of this Pod.
    pub(crate) fn outside_of_the_pod(&self, api: &Url) -> Self {
        if !self.is_inside_of_the_pod() {
            return self.clone();
        }
        let known_name = |url: &Url| {
            let last = url.path_segments()?.rfind(|part| !part.is_empty())?;
            NAMES.into_iter().find(|name| *name == last)
        };
        // A sidecar has one of both, as the gateway beyond it.
        match self.urls.iter().map(known_name).collect::<Option<Vec<_>>>() {
            Some(names) => Self {
                urls: names.iter().map(|name| below(api, name)).collect(),
                origin: Origin::Setting,
            },
            None => Self::at_the_gateway(api),
        }
    }

    /// Whether other Pods cannot reach it.
    pub(crate) fn is_inside_of_the_pod(&self) -> bool {
        self.urls
            .iter()
            .any(|url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")))
    }

    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    pub(crate) fn first(&self) -> &Url {
        &self.urls[0]
    }

    pub(super) fn urls(&self) -> &[Url] {
        &self.urls
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<&str> = self.urls.iter().map(Url::as_str).collect();
        f.write_str(&urls.join(","))
    }
}

fn below(api: &Url, name: &str) -> Url {
    let mut url = api.clone();
    // One with a host, as all settings have, has a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(name);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Addresses {
        Addresses::parse(text, |url| {
            Url::parse(url).map_err(|error| error.to_string())
        })
        .unwrap()
    }

    #[test]
    fn what_only_the_pod_reaches_is_reached_through_the_gateway() {
        let api = Url::parse("https://keptn.example.com/api/").unwrap();
        for (inside, outside) in [
            (
                "http://localhost:8081/resource-service",
                "https://keptn.example.com/api/resource-service",
            ),
            (
                "http://127.0.0.1:8081/configuration-service/",
                "https://keptn.example.com/api/configuration-service",
            ),
            (
                "http://localhost:8081/elsewhere",
                "https://keptn.example.com/api/configuration-service,\
                 https://keptn.example.com/api/resource-service",
            ),
            (
                "http://resource-service:8080",
                "http://resource-service:8080/",
            ),
        ] {
            let through = addresses(inside).outside_of_the_pod(&api);
            assert_eq!(through.to_string(), outside);
        }
    }

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for text in [
            Addresses::in_the_cluster().to_string(),
            "http://a/x,https://b/".into(),
        ] {
            assert_eq!(addresses(&text).to_string(), text);
        }
    }
}
