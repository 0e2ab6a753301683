//! Requests that the gateway itself sends to outside services: to the endpoints of OAuth providers. (Those of skills
//! are sent by the tenant's instance.) Guarded as those are: https to public addresses, and what the operator lists in
//! `skills.private_network_hosts` besides. Names are resolved here, once, and the address that was judged is the one
//! that is connected to. No redirects, no proxy, no cookies; a limit on the time and on the size.

use futures::StreamExt;
use reqwest::{
    Client, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use url::{Host, Url};
use zeroize::Zeroizing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte sent to the last one read.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The two clients: for the internet, and for the private hosts that the operator allows.
#[derive(Clone, Debug)]
pub struct Outbound {
    public: Client,
    private: Client,
    private_hosts: Vec<String>,
}

/// Why a request did not go out, or has no answer that can be used. None holds anything of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    #[error("{0}")]
    Refused(String),
    #[error("{0} cannot be reached")]
    Away(String),
    #[error("{0} answered more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge(String),
}

/// An answer, read whole.
pub struct Answer {
    pub status: u16,
    pub body: Zeroizing<Vec<u8>>,
}

impl Outbound {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clients of the gateway's own requests"
    )]
    pub fn new(private_hosts: &[String]) -> reqwest::Result<Self> {
        // One TLS provider for everything; a second call finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .no_proxy()
                .redirect(Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(REQUEST_TIMEOUT)
                .user_agent(concat!("tsunami/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self {
            public: builder().dns_resolver(PublicOnly).build()?,
            private: builder().build()?,
            private_hosts: private_hosts.to_vec(),
        })
    }

    /// Whether a request may go there; the host, with its port where that is not the default one.
    ///
    /// # Errors
    /// Says why not.
    pub fn check(&self, url: &Url) -> Result<String, OutboundError> {
        let refused = |why: String| Err(OutboundError::Refused(why));
        let Some(host) = url.host() else {
            return refused("the URL names no host".to_owned());
        };
        let at = host_of(url);
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return refused(format!(
                "the URL at {at} holds user info or a fragment, which it must not"
            ));
        }
        let private = self.is_private(url);
        if url.scheme() != "https" && !(url.scheme() == "http" && private) {
            return refused(format!(
                "{at} would be asked over {}; only https is allowed (an operator may allow a private host by skills.private_network_hosts)",
                url.scheme()
            ));
        }
        let address = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        };
        if address.is_some_and(|address| !is_public(address)) && !private {
            return refused(format!(
                "{at} is not on the public internet (an operator may allow a private host by skills.private_network_hosts)"
            ));
        }
        Ok(at)
    }

    fn is_private(&self, url: &Url) -> bool {
        is_listed(&self.private_hosts, url)
    }

    pub async fn get(&self, url: &Url) -> Result<Answer, OutboundError> {
        self.send(url, |client| client.get(url.clone())).await
    }

    /// Sends a form (`application/x-www-form-urlencoded`), with the value of `Authorization` where one is given.
    pub async fn post_form(
        &self,
        url: &Url,
        form: Zeroizing<String>,
        authorization: Option<Zeroizing<String>>,
    ) -> Result<Answer, OutboundError> {
        self.send(url, |client| {
            let mut request = client
                .post(url.clone())
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form.to_string());
            if let Some(authorization) = &authorization {
                let mut value = reqwest::header::HeaderValue::from_str(authorization)
                    .unwrap_or(reqwest::header::HeaderValue::from_static("Basic"));
                value.set_sensitive(true);
                request = request.header("authorization", value);
            }
            request
        })
        .await
    }

    async fn send(
        &self,
        url: &Url,
        request: impl FnOnce(&Client) -> reqwest::RequestBuilder,
    ) -> Result<Answer, OutboundError> {
        let at = self.check(url)?;
        let client = match self.is_private(url) {
            true => &self.private,
            false => &self.public,
        };
        let request = request(client).header("accept", "application/json");
        // What the library says names the URL, which may hold anything: it is told without.
        let response = request.send().await.map_err(|error| {
            tracing::info!(host = at, error = %error.without_url(), "an outside request has no answer");
            OutboundError::Away(at.clone())
        })?;
        let status = response.status().as_u16();
        let body = read(response, &at).await?;
        Ok(Answer { status, body })
    }
}

async fn read(response: Response, at: &str) -> Result<Zeroizing<Vec<u8>>, OutboundError> {
    let mut body = Zeroizing::new(Vec::with_capacity(4096));
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| OutboundError::Away(at.to_owned()))?;
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(OutboundError::TooLarge(at.to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Whether the operator lists the URL's host with its port, in `skills.private_network_hosts`.
pub fn is_listed(private_hosts: &[String], url: &Url) -> bool {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return false;
    };
    let at = format!("{}:{port}", host.to_ascii_lowercase());
    private_hosts.contains(&at)
}

/// What is wrong with an entry of that list. The port belongs to it: a host of the operator's has other doors besides the
/// one that tenants may knock at.
pub fn wrong_private_host(entry: &str) -> Option<String> {
    let port = entry.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) {
        return Some(format!(
            "`{entry}` names no port; each entry is `host:port`"
        ));
    }
    // As a URL with that host has it, so that the two can be compared.
    let written = Url::parse(&format!("ws://{entry}/")).ok().and_then(|url| {
        let port = url.port_or_known_default()?;
        url.host_str().map(|host| format!("{host}:{port}"))
    });
    match written {
        Some(written) if written == entry => None,
        Some(written) => Some(format!("`{entry}` must be written `{written}`")),
        None => Some(format!("`{entry}` is not a host and a port")),
    }
}

/// `idp.example`, `idp.example:8443`.
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

/// Resolves names, and drops every address that is not on the public internet.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|at| is_public(at.ip())).collect();
            if public.is_empty() {
                return Err("the name has no address on the public internet".into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// The special-purpose registries of IANA (RFC 6890 and its updates), as the bridge has them (`addresses.js`).
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// Of IPv6 only 2000::/3 is handed out; these parts of it are not public, or carry an IPv4 address inside.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public_v4(v4),
            None => {
                let within = |(network, prefix): (Ipv6Addr, u32)| {
                    (v6.to_bits() ^ network.to_bits()) >> (128 - prefix) == 0
                };
                within(GLOBAL_UNICAST) && !NOT_PUBLIC_V6.into_iter().any(within)
            }
        },
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let within = |(network, prefix): (Ipv4Addr, u32)| {
        (v4.to_bits() ^ network.to_bits()) >> (32 - prefix) == 0
    };
    !NOT_PUBLIC_V4.into_iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound() -> Outbound {
        Outbound::new(&["127.0.0.1:9".to_owned(), "idp.internal:80".to_owned()]).unwrap()
    }

    fn checked(url: &str) -> Result<String, OutboundError> {
        outbound().check(&Url::parse(url).unwrap())
    }

    #[test]
    fn only_https_to_the_internet_or_to_what_the_operator_lists() {
        assert_eq!(checked("https://idp.example/token").unwrap(), "idp.example");
        assert_eq!(
            checked("https://idp.example:8443/").unwrap(),
            "idp.example:8443"
        );
        assert_eq!(checked("http://127.0.0.1:9/token").unwrap(), "127.0.0.1:9");
        assert_eq!(checked("http://idp.internal:80/").unwrap(), "idp.internal");
        for refused in [
            "http://idp.example/token",
            "http://127.0.0.1:10/token",
            "http://127.0.0.1/",
            "http://idp.internal:81/",
            "http://idp.internal:443/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
            "https://user@idp.example/",
            "https://idp.example/#x",
            "ftp://idp.example/",
        ] {
            assert!(
                matches!(checked(refused), Err(OutboundError::Refused(_))),
                "{refused}"
            );
        }
    }

    #[test]
    fn an_entry_of_the_private_hosts_names_its_port() {
        for right in [
            "127.0.0.1:9",
            "idp.internal:443",
            "idp.internal:80",
            "[::1]:8443",
        ] {
            assert_eq!(wrong_private_host(right), None);
        }
        for wrong in [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "::1",
            "a:0",
            "a:65536",
            "a:",
            ":80",
            "a:+80",
            "a:080",
            "A:80",
            "127.1:80",
            "http://a:80",
            "u@a:80",
            "a/b:80",
            "a:80/",
            "",
        ] {
            assert!(wrong_private_host(wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn what_the_bridge_holds_for_private_is_private_here() {
        let bridge = include_str!("../../plugins/openclaw-bridge/addresses.js");
        let listed = bridge.matches("\n  [\"").count();
        assert_eq!(listed, NOT_PUBLIC_V4.len() + NOT_PUBLIC_V6.len());
        for (network, prefix) in NOT_PUBLIC_V4 {
            assert!(bridge.contains(&format!("[\"{network}\", {prefix}]")));
        }
        for (network, prefix) in NOT_PUBLIC_V6 {
            assert!(bridge.contains(&format!("[\"{network}\", {prefix}]")));
        }
        for (address, public) in [
            ("8.8.8.8", true),
            ("172.32.0.1", true),
            ("172.31.255.255", false),
            ("2606:4700::1111", true),
            ("fd00::1", false),
            ("::ffff:127.0.0.1", false),
            ("2002:7f00:1::", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_asked() {
        let url = Url::parse("https://localhost:9/").unwrap();
        let asked = outbound().get(&url).await;
        assert!(matches!(asked, Err(OutboundError::Away(_))));
        let name = "localhost".parse().unwrap();
        assert!(PublicOnly.resolve(name).await.is_err());
    }
}
