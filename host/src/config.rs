//! What can be set: one TOML file, each setting overridable by an environment variable.
//!
//! `database.url` in the file is `TSUNAMI_DATABASE__URL` in the environment. A wrong setting is refused
//! at start, with its name, what is wrong with the value, and an example.

use crate::{id::TenantId, outbound};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// What one call may be said to cost: a million US dollars.
pub const COST_MICRO_USD_MAX: u64 = 1_000_000_000_000;
/// The prefix of the environment variables that override settings.
const ENV_PREFIX: &str = "TSUNAMI_";

/// Seconds that one outside request may take, at most. The bridge takes 300 (`MAX_TIMEOUT_MS`). A call is taken up by
/// another process when its lease of 120 s is over (`skills::router`), and within that the instance is asked for its
/// journal (10 s) and the request is made and answered (its time, and 5 s).
const REQUEST_TIMEOUT_SECONDS_MAX: u32 = 100;
/// Bytes of one outside reply, at most: what the bridge takes (`MAX_RESPONSE_BYTES`), as its answer must fit a frame.
const REPLY_BYTES_MAX: u32 = 16 << 20;

/// A text that `config show` masks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Serialize for Secret {
    /// Shows the shape of a URL and hides its password; hides anything else.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&mask(self.expose()))
    }
}

fn mask(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return "****".to_owned();
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let place = match place.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{user}:****@{host}")
        }
        None => place.to_owned(),
    };
    let Some(query) = query else {
        return format!("{scheme}://{place}");
    };
    // PostgreSQL's drivers take a password there too, and read its name in other spellings.
    let shown = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if SHOWN_OF_A_QUERY.contains(&name) => pair.to_owned(),
        Some((name, _)) => format!("{name}=****"),
        None => "****".to_owned(),
    });
    let shown: Vec<_> = shown.collect();
    format!("{scheme}://{place}?{}", shown.join("&"))
}

/// Parameters of a URL that are no secret, and help whoever looks for a mistake.
const SHOWN_OF_A_QUERY: [&str; 8] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "sslmode",
    "sslrootcert",
    "application_name",
];

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),+ }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),+ }
            }
        }
    )+};
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Where the key-encryption keys come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyProviderKind {
    File,
    Env,
}

/// Where tenants' OpenClaw instances run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Local,
}

settings! {
    /// Everything that can be set.
    Config {
        http: HttpConfig = HttpConfig::default(),
        database: DatabaseConfig = DatabaseConfig::default(),
        temporal: TemporalConfig = TemporalConfig::default(),
        vault: VaultConfig = VaultConfig::default(),
        plugins: PluginsConfig = PluginsConfig::default(),
        marketplace: MarketplaceConfig = MarketplaceConfig::default(),
        instances: InstancesConfig = InstancesConfig::default(),
        skills: SkillsConfig = SkillsConfig::default(),
        tasks: TasksConfig = TasksConfig::default(),
        log: LogConfig = LogConfig::default(),
    }
    /// The API's own server.
    HttpConfig {
        /// Address and port to listen on.
        listen: String = "127.0.0.1:8480".into(),
        /// Where browsers reach the API, without a path's last slash: who signs in for a credential is sent back there.
        /// While it is empty nobody can sign in.
        public_url: String = String::new(),
        /// Clients' connections at once. For a further one the connection is closed that has waited longest for a request.
        connections_max: u32 = 8192,
        /// Requests served at once; further ones get 503 with Retry-After.
        requests_in_flight_max: u32 = 512,
        /// Seconds until a request is given up (live streams excepted).
        request_timeout_seconds: u32 = 120,
        /// Seconds that a request's head, and the next request of a connection, is waited for.
        head_timeout_seconds: u32 = 60,
        /// Seconds that the next byte of a body is waited for.
        body_pause_seconds: u32 = 10,
        /// Seconds that a whole body is waited for, beside one for each 64 KiB that have come.
        body_timeout_seconds: u32 = 30,
    }
    /// PostgreSQL 18, three roles (`migrations/*_ground_roles.sql`).
    DatabaseConfig {
        /// As the application role, which sees one tenant at a time.
        url: Secret = Secret::default(),
        /// As the system role, for the jobs that span tenants.
        system_url: Secret = Secret::default(),
        /// As the owner, for `tsunami migrate` alone.
        owner_url: Secret = Secret::default(),
        connections_max: u32 = 24,
        system_connections_max: u32 = 12,
    }
    /// The Temporal cluster.
    TemporalConfig {
        url: String = "http://127.0.0.1:7233".into(),
        namespace: String = "default".into(),
    }
    /// Where credentials are kept from.
    VaultConfig {
        key_provider: KeyProviderKind = KeyProviderKind::File,
        /// For the provider `file`: lines of `id = base64 of 32 bytes`, mode 0600.
        key_file: PathBuf = PathBuf::new(),
        /// For the provider `env`: the name of the variable that holds the same.
        key_env: String = "TSUNAMI_VAULT_KEYS".into(),
    }
    /// The sandbox of the plugins. What is said here is the ceiling; a tenant may have less.
    PluginsConfig {
        /// A component's file, in bytes, at most.
        component_bytes_max: u64 = 24 << 20,
        /// Milliseconds until a call into a plugin is ended.
        call_timeout_ms: u32 = 100,
        /// Memory of one call, in bytes, at most.
        call_memory_bytes_max: u64 = 32 << 20,
        /// The same for plugins that bring the interpreter of their language along: JavaScript, Python.
        large_call_timeout_ms: u32 = 1000,
        large_call_memory_bytes_max: u64 = 128 << 20,
        /// Where compiled plugins are kept; where it is empty, in the folder `plugin-cache` of instances.data_dir.
        cache_dir: PathBuf = PathBuf::new(),
        /// Compiled plugins kept there, in bytes; the least used are removed.
        cache_bytes_max: u64 = 4 << 30,
        /// What single tenants may take, by id, below the ceiling.
        tenants: BTreeMap<TenantId, TenantPluginsConfig> = BTreeMap::new(),
    }
    /// What one tenant's calls into plugins may take. What is left out is as the ceiling says.
    TenantPluginsConfig {
        call_timeout_ms: Option<u32> = None,
        call_memory_bytes_max: Option<u64> = None,
        /// Calls at one instant.
        calls_running_max: Option<u32> = None,
    }
    /// Plugins that are published, and what is done about bad ones.
    MarketplaceConfig {
        /// OCI registries that components may be pulled from.
        registries: Vec<RegistryConfig> = Vec::new(),
        /// Seconds without word from the database on which plugins are revoked, until published plugins are
        /// called no more. A tenant's own uploads are called on.
        revocations_stale_seconds: u32 = 30,
        /// Seconds between two looks at whether installations that upgrade by themselves can.
        auto_upgrade_interval_seconds: u32 = 60,
        /// The trusted root of a Sigstore instance of one's own (JSON); empty for the public instance.
        sigstore_trusted_root_file: PathBuf = PathBuf::new(),
    }
    /// An OCI registry.
    RegistryConfig {
        /// `ghcr.io`, `registry.internal:5000`
        host: String = String::new(),
        /// Without TLS; only on this machine.
        plain_http: bool = false,
        /// Empty where anybody may pull. With name and password the operators' own releases are pulled.
        username: String = String::new(),
        password: Secret = Secret::default(),
        /// Beginnings of repositories, in whole segments, that tenants may have pulled with them too: `acme/plugins`.
        /// Whatever else a tenant names is pulled without.
        tenant_repositories: Vec<String> = Vec::new(),
    }
    /// Tenants' OpenClaw instances.
    InstancesConfig {
        driver: Driver = Driver::Local,
        /// Where the driver `local` keeps each instance's folder.
        data_dir: PathBuf = PathBuf::new(),
        /// Where `scripts/bootstrap` put Node and OpenClaw.
        tools_dir: PathBuf = PathBuf::from(".tools"),
        /// The plugin that lets an instance carry out requests.
        bridge_dir: PathBuf = PathBuf::from("plugins/openclaw-bridge"),
        openclaw_version: String = "2026.9.6".into(),
        /// Seconds until a new instance must answer.
        ready_timeout_seconds: u32 = 300,
        /// Seconds between two looks at an instance's health.
        health_interval_seconds: u32 = 60,
    }
    /// The skill router.
    SkillsConfig {
        /// Hosts on a private network or on this machine that a plugin's settings may point at, each `host:port`.
        /// All others are refused there. Every tenant reaches what is listed: name no port of the gateway's own servers.
        private_network_hosts: Vec<String> = Vec::new(),
        /// Seconds until one outside request is given up, 100 at most.
        request_timeout_seconds: u32 = 30,
        /// Bytes of one outside reply, at most; 16,777,216 at most.
        reply_bytes_max: u32 = 4 << 20,
        /// Outside requests that one call may make.
        steps_max: u32 = 32,
        /// What a call costs at least, in millionths of a US dollar, whatever the tenant's configuration says: of an action
        /// (`"whatsapp.send_text"`), of a skill (`"whatsapp"`) or of any (`"*"`). The dearest that fits holds.
        least_costs_micro_usd: BTreeMap<String, u64> = BTreeMap::new(),
    }
    /// Durable tasks.
    TasksConfig {
        /// Seconds before the second attempt at a step that failed.
        retry_initial_seconds: u32 = 30,
        /// Seconds between two attempts, at most.
        retry_seconds_max: u32 = 300,
        /// Attempts at a step.
        attempts_max: u32 = 3,
        /// Seconds without a sign of life from a step's process, until another takes it up.
        heartbeat_seconds: u32 = 10,
        /// Seconds of working time a task; waiting for a person does not count.
        working_seconds_max: u32 = 600,
        /// Seconds of working time a chain of delegated tasks.
        chain_working_seconds_max: u32 = 1800,
        /// Activities, the steps of workflows, that one process works on at once. Those that wait beyond them are taken
        /// from each tenant in turn.
        activities_at_once_max: u32 = 200,
        /// Workflows that one process moves at once, those of each tenant in turn; four a processor where it is not set.
        workflows_moved_max: Option<u32> = None,
    }
    /// Log lines, to standard error.
    LogConfig {
        format: LogFormat = LogFormat::Text,
        /// `tracing` directives: `info`, `tsunami=debug,info`.
        filter: String = "info".into(),
    }
}

/// What is wrong with the configuration, in words for the person who wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "cannot read the configuration file {path}: {cause}. Name another with --config or TSUNAMI_CONFIG."
    )]
    Unreadable {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{path} is not TOML: {cause}")]
    NotToml {
        path: PathBuf,
        cause: toml::de::Error,
    },
    #[error("setting `{name}`{origin}: {problem}. Example: {example}")]
    Setting {
        name: String,
        origin: String,
        problem: String,
        example: String,
    },
}

impl Config {
    /// The file, if there is one, with the environment's overrides on top.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::load_over(Table::new(), file, env)
    }

    /// As [`Config::load`], over `base`: what `tsunami dev` provides by itself.
    pub fn load_over(
        base: Table,
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table = base;
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable {
                path: path.to_owned(),
                cause,
            })?;
            let from_file = text
                .parse::<Table>()
                .map_err(|cause| ConfigError::NotToml {
                    path: path.to_owned(),
                    cause,
                })?;
            merge(&mut table, from_file);
        }
        for (name, value) in env {
            if let Some(path) = setting_of_variable(&name) {
                set(&mut table, &path, value);
            }
        }
        let config: Self = serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
            let name = e.path().to_string();
            // TOML's error names the setting once more, on a line of its own.
            let told = e.into_inner().to_string();
            setting_error(&name, told.lines().next().unwrap_or_default().to_owned())
        })?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.http.listen.parse::<std::net::SocketAddr>().is_err() {
            return Err(setting_error(
                "http.listen",
                format!("`{}` is not an address and port", self.http.listen),
            ));
        }
        if let Some(problem) = wrong_temporal_url(&self.temporal.url) {
            return Err(setting_error("temporal.url", problem));
        }
        if let Some(problem) = wrong_public_url(&self.http.public_url) {
            return Err(setting_error("http.public_url", problem));
        }
        for (name, value) in [
            ("http.connections_max", self.http.connections_max),
            (
                "http.requests_in_flight_max",
                self.http.requests_in_flight_max,
            ),
            (
                "http.request_timeout_seconds",
                self.http.request_timeout_seconds,
            ),
            ("http.head_timeout_seconds", self.http.head_timeout_seconds),
            ("http.body_pause_seconds", self.http.body_pause_seconds),
            ("http.body_timeout_seconds", self.http.body_timeout_seconds),
            ("database.connections_max", self.database.connections_max),
            (
                "database.system_connections_max",
                self.database.system_connections_max,
            ),
            ("plugins.call_timeout_ms", self.plugins.call_timeout_ms),
            (
                "plugins.large_call_timeout_ms",
                self.plugins.large_call_timeout_ms,
            ),
            (
                "instances.ready_timeout_seconds",
                self.instances.ready_timeout_seconds,
            ),
            (
                "instances.health_interval_seconds",
                self.instances.health_interval_seconds,
            ),
            (
                "skills.request_timeout_seconds",
                self.skills.request_timeout_seconds,
            ),
            ("skills.reply_bytes_max", self.skills.reply_bytes_max),
            (
                "marketplace.revocations_stale_seconds",
                self.marketplace.revocations_stale_seconds,
            ),
            (
                "marketplace.auto_upgrade_interval_seconds",
                self.marketplace.auto_upgrade_interval_seconds,
            ),
            ("skills.steps_max", self.skills.steps_max),
            (
                "tasks.retry_initial_seconds",
                self.tasks.retry_initial_seconds,
            ),
            ("tasks.attempts_max", self.tasks.attempts_max),
            ("tasks.heartbeat_seconds", self.tasks.heartbeat_seconds),
            (
                "tasks.activities_at_once_max",
                self.tasks.activities_at_once_max,
            ),
            (
                "tasks.workflows_moved_max",
                self.tasks.workflows_moved_max.unwrap_or(1),
            ),
            ("tasks.working_seconds_max", self.tasks.working_seconds_max),
        ] {
            if value == 0 {
                return Err(setting_error(
                    name,
                    "it is 0; it must be at least 1".to_owned(),
                ));
            }
        }
        for (name, value, max) in [
            (
                "skills.request_timeout_seconds",
                self.skills.request_timeout_seconds,
                REQUEST_TIMEOUT_SECONDS_MAX,
            ),
            (
                "skills.reply_bytes_max",
                self.skills.reply_bytes_max,
                REPLY_BYTES_MAX,
            ),
        ] {
            if value > max {
                return Err(setting_error(
                    name,
                    format!("it is {value}; it must be at most {max}"),
                ));
            }
        }
        self.validate_private_hosts()?;
        self.validate_least_costs()?;
        for (tenant, limits) in &self.plugins.tenants {
            let is_zero = [limits.call_timeout_ms, limits.calls_running_max].contains(&Some(0));
            if is_zero || limits.call_memory_bytes_max == Some(0) {
                return Err(setting_error(
                    &format!("plugins.tenants.{tenant}"),
                    "one of its limits is 0; it must be at least 1".to_owned(),
                ));
            }
        }
        if self.tasks.retry_seconds_max < self.tasks.retry_initial_seconds {
            return Err(setting_error(
                "tasks.retry_seconds_max",
                "it is smaller than tasks.retry_initial_seconds".to_owned(),
            ));
        }
        for registry in &self.marketplace.registries {
            let problem = match registry.host.as_str() {
                "" => "a registry has no `host`".to_owned(),
                host if host.contains('/') => {
                    format!(
                        "`{host}` must be a host, with a port where it has one, and nothing else"
                    )
                }
                host if registry.plain_http && !is_this_machine(host) => {
                    format!(
                        "`plain_http` sends components in the clear, and `{host}` is not this machine"
                    )
                }
                _ => match registry
                    .tenant_repositories
                    .iter()
                    .find(|r| !is_repository(r))
                {
                    Some(wrong) => format!(
                        "`tenant_repositories` holds `{wrong}`: it must be the beginning of a repository without its host, such as `acme/plugins`"
                    ),
                    None => continue,
                },
            };
            return Err(setting_error("marketplace.registries", problem));
        }
        Ok(())
    }

    /// What a serving process cannot do without; `tsunami dev` fills these in by itself.
    pub fn require_servers(&self) -> Result<(), ConfigError> {
        for (name, url) in [
            ("database.url", &self.database.url),
            ("database.system_url", &self.database.system_url),
        ] {
            if url.expose().is_empty() {
                return Err(setting_error(name, "it is not set".to_owned()));
            }
        }
        if self.instances.data_dir.as_os_str().is_empty() {
            return Err(setting_error(
                "instances.data_dir",
                "it is not set".to_owned(),
            ));
        }
        if self.vault.key_provider == KeyProviderKind::File
            && self.vault.key_file.as_os_str().is_empty()
        {
            return Err(setting_error("vault.key_file", "it is not set".to_owned()));
        }
        Ok(())
    }

    fn validate_least_costs(&self) -> Result<(), ConfigError> {
        let wrong = |of: &str, cost: u64| {
            if cost > COST_MICRO_USD_MAX {
                return Some(format!(
                    "{cost} is more than {COST_MICRO_USD_MAX}, a million dollars"
                ));
            }
            let names = of.split('.');
            let is_name = |name: &str| {
                let mut chars = name.chars();
                chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
                    && !name.is_empty()
            };
            let fits = of == "*" || (names.clone().count() <= 2 && names.clone().all(is_name));
            (!fits).then(|| format!("`{of}` is no `skill.action`, `skill` or `*`"))
        };
        let costs = &self.skills.least_costs_micro_usd;
        match costs.iter().find_map(|(of, cost)| wrong(of, *cost)) {
            Some(problem) => Err(setting_error("skills.least_costs_micro_usd", problem)),
            None => Ok(()),
        }
    }

    fn validate_private_hosts(&self) -> Result<(), ConfigError> {
        let own = self.own_servers();
        for entry in &self.skills.private_network_hosts {
            let wrong = outbound::wrong_private_host(entry).or_else(|| {
                let is_own = own.iter().any(|server| is_same_door(server, entry));
                is_own.then(|| {
                    format!("`{entry}` is a server of the gateway's own, which no tenant may reach")
                })
            });
            if let Some(problem) = wrong {
                return Err(setting_error("skills.private_network_hosts", problem));
            }
        }
        Ok(())
    }

    /// Where the API, Temporal and PostgreSQL listen, each `host:port`.
    fn own_servers(&self) -> Vec<String> {
        let urls = [
            (self.temporal.url.as_str(), 7233),
            (self.database.url.expose(), 5432),
            (self.database.system_url.expose(), 5432),
            (self.database.owner_url.expose(), 5432),
        ];
        let of_urls = urls.into_iter().filter_map(|(text, usual_port)| {
            let url = url::Url::parse(text).ok()?;
            let port = url.port().unwrap_or(usual_port);
            url.host_str().map(|host| format!("{host}:{port}"))
        });
        of_urls.chain([self.http.listen.clone()]).collect()
    }

    /// Where compiled plugins are kept.
    pub fn plugin_cache_dir(&self) -> PathBuf {
        let named = &self.plugins.cache_dir;
        if named.as_os_str().is_empty() {
            self.instances.data_dir.join("plugin-cache")
        } else {
            named.clone()
        }
    }

    /// As TOML, with secrets masked.
    pub fn show(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_default()
    }
}

impl SkillsConfig {
    /// What the operator says that a call of the action costs at least, in millionths of a US dollar. A skill's name is its
    /// plugin's to choose, so that one which is named is no cheaper than any.
    pub fn least_cost(&self, skill: &str, action: &str) -> Option<u64> {
        let named = [&format!("{skill}.{action}"), skill, "*"];
        let costs = named.map(|name| self.least_costs_micro_usd.get(name).copied());
        costs.into_iter().flatten().max()
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether both are one server's: the same, or one port of this machine, however it is named.
fn is_same_door(server: &str, entry: &str) -> bool {
    let (Some((server_host, port)), Some((_, entry_port))) =
        (server.rsplit_once(':'), entry.rsplit_once(':'))
    else {
        return false;
    };
    let here = is_this_machine(server) || matches!(server_host, "0.0.0.0" | "[::]");
    server == entry || (port == entry_port && here && is_this_machine(entry))
}

/// The beginning of a repository, in whole segments.
fn is_repository(text: &str) -> bool {
    !text.is_empty()
        && text.split('/').all(|segment| {
            segment.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && segment
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
        })
}

/// Codes of sign-ins come back there: over https, or on this machine.
fn wrong_public_url(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let Ok(url) = url::Url::parse(text) else {
        return Some(format!("`{}` is not a URL", mask(text)));
    };
    let local = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && local) {
        return Some(format!("`{}` is not https", mask(text)));
    }
    let more = url.query().is_some() || url.fragment().is_some() || text.ends_with('/');
    let user = !url.username().is_empty() || url.password().is_some();
    (more || user).then(|| {
        format!(
            "`{}` has more than a host and a path, or ends with a slash",
            mask(text)
        )
    })
}

/// Nothing else of it is used, and `config show` prints it.
fn wrong_temporal_url(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok();
    let is_plain = url.is_some_and(|url| {
        url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.path() == "/"
            && ["http", "https"].contains(&url.scheme())
    });
    (!is_plain).then(|| {
        format!(
            "`{}` is not a URL of a scheme, a host and a port alone",
            mask(text)
        )
    })
}

/// A variable of the environment; `None` where it is not set, or is no text.
#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
pub fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The environment, for [`Config::load`]. What is no text is somebody else's; a setting that is none is refused.
pub fn environment() -> Result<std::vec::IntoIter<(String, String)>, ConfigError> {
    texts(std::env::vars_os())
}

fn texts(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<std::vec::IntoIter<(String, String)>, ConfigError> {
    let mut texts = Vec::new();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match (value.into_string(), setting_of_variable(&name)) {
            (Ok(value), _) => texts.push((name, value)),
            (Err(_), None) => {}
            (Err(_), Some(setting)) => {
                let problem = "its value is not UTF-8".to_owned();
                return Err(setting_error(&setting.join("."), problem));
            }
        }
    }
    Ok(texts.into_iter())
}

/// `TSUNAMI_DATABASE__URL` -> `database.url`. Variables without `__` are the program's own.
fn setting_of_variable(variable: &str) -> Option<Vec<String>> {
    let rest = variable.strip_prefix(ENV_PREFIX)?;
    rest.contains("__")
        .then(|| rest.split("__").map(str::to_lowercase).collect())
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn set(table: &mut Table, path: &[String], text: String) {
    match path {
        [] => {}
        [last] => {
            // A number, a boolean or a list reads as such; anything else is a text.
            let parsed = format!("v = {text}")
                .parse::<Table>()
                .ok()
                .and_then(|mut t| t.remove("v"));
            let value = parsed
                .filter(|v| !v.is_table() && !v.is_datetime())
                .unwrap_or(Value::String(text));
            table.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let entry = table
                .entry(first.clone())
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = entry {
                set(inner, rest, text);
            }
        }
    }
}

fn setting_error(name: &str, problem: String) -> ConfigError {
    // One element of a list is set with the whole list: `marketplace.registries[0].host`.
    let list = name.split('[').next().unwrap_or(name);
    let variable = format!("{ENV_PREFIX}{}", list.replace('.', "__").to_uppercase());
    ConfigError::Setting {
        origin: format!(" (environment: {variable})"),
        example: example_of(list),
        name: name.to_owned(),
        problem,
    }
}

/// A value that would do: the default, or one written down where the default is empty.
fn example_of(name: &str) -> String {
    let written = match name {
        "database.url" => Some("\"postgres://tsunami_app:PASSWORD@db.internal/tsunami\""),
        "database.system_url" => Some("\"postgres://tsunami_system:PASSWORD@db.internal/tsunami\""),
        "database.owner_url" => Some("\"postgres://tsunami_owner:PASSWORD@db.internal/tsunami\""),
        "vault.key_file" => Some("\"/etc/tsunami/vault-keys\""),
        "marketplace.registries" => Some("[{ host = \"ghcr.io\" }]"),
        name if name.starts_with("plugins.tenants.") => Some("{ call_timeout_ms = 50 }"),
        "http.public_url" => Some("\"https://gateway.example.com\""),
        "temporal.url" => Some("\"http://127.0.0.1:7233\""),
        "skills.private_network_hosts" => Some("[\"github.internal:443\"]"),
        "tasks.workflows_moved_max" => Some("8"),
        "skills.least_costs_micro_usd" => Some("{ \"whatsapp.send_text\" = 5000 }"),
        _ => None,
    };
    let leaf = name.rsplit('.').next().unwrap_or(name);
    if let Some(text) = written {
        return format!("{leaf} = {text}");
    }
    let defaults = Table::try_from(Config::default()).unwrap_or_default();
    let mut value = Some(&Value::Table(defaults)).cloned();
    for part in name.split('.') {
        value = value.and_then(|v| v.get(part).cloned());
    }
    match value {
        Some(Value::Table(table)) => format!(
            "the settings here are {}",
            table.keys().cloned().collect::<Vec<_>>().join(", ")
        ),
        Some(value) => format!("{leaf} = {value}"),
        None => "`tsunami config show` prints every setting".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::load(
            None,
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn a_password_is_masked_wherever_a_url_has_it() {
        for (url, shown) in [
            ("postgres://app:hunter2@db/t", "postgres://app:****@db/t"),
            (
                "postgres://app@db/t?password=hunter2&sslmode=require",
                "postgres://app:****@db/t?password=****&sslmode=require",
            ),
            (
                "postgres://db/t?password=hunter2@x&%70assword=hunter2",
                "postgres://db/t?password=****&%70assword=****",
            ),
            (
                "postgres://db/t?sslmode=require",
                "postgres://db/t?sslmode=require",
            ),
            ("hunter2", "****"),
        ] {
            assert_eq!(mask(url), shown);
        }
        let with_password = "http://u:hunter2@temporal:7233";
        for (name, example) in [
            ("TSUNAMI_TEMPORAL__URL", "7233"),
            ("TSUNAMI_HTTP__PUBLIC_URL", "gateway.example.com"),
        ] {
            let variables = [(name.to_owned(), with_password.to_owned())];
            let told = Config::load(None, variables.into_iter())
                .unwrap_err()
                .to_string();
            assert!(
                !told.contains("hunter2") && told.contains(example),
                "{told}"
            );
        }
    }

    #[test]
    fn the_environment_overrides_with_the_right_type() {
        let config = load(&[
            ("TSUNAMI_DATABASE__CONNECTIONS_MAX", "7"),
            ("TSUNAMI_DATABASE__URL", "postgres://app:hunter2@db/t"),
            ("TSUNAMI_SKILLS__PRIVATE_NETWORK_HOSTS", "[\"127.0.0.1:9\"]"),
            ("TSUNAMI_CONFIG", "not a setting"),
        ])
        .unwrap();
        assert_eq!(config.database.connections_max, 7);
        assert_eq!(config.skills.private_network_hosts, ["127.0.0.1:9"]);
        assert!(!config.show().contains("hunter2"));
        assert!(config.show().contains("postgres://app:****@db/t"));
    }

    #[test]
    fn only_a_registry_on_this_machine_goes_without_tls() {
        let load = |text: &str| load(&[("TSUNAMI_MARKETPLACE__REGISTRIES", text)]);
        for host in [
            "127.0.0.1:5000",
            "localhost:5000",
            "[::1]:5000",
            "127.0.0.1",
        ] {
            let config = load(&format!("[{{ host = \"{host}\", plain_http = true }}]")).unwrap();
            assert_eq!(config.marketplace.registries[0].host, host);
        }
        load("[{ host = \"ghcr.io\", username = \"u\", password = \"hunter2\" }]").unwrap();
        for wrong in [
            "[{ host = \"ghcr.io\", plain_http = true }]",
            "[{ host = \"https://ghcr.io\" }]",
            "[{ host = \"ghcr.io\", tenant_repositories = [\"\"] }]",
            "[{ host = \"ghcr.io\", tenant_repositories = [\"/acme\"] }]",
            "[{ host = \"ghcr.io\", tenant_repositories = [\"ghcr.io:443/acme\"] }]",
            "[{ plain_http = true }]",
        ] {
            let told = load(wrong).unwrap_err().to_string();
            assert!(
                told.contains("marketplace.registries") && told.contains("ghcr.io"),
                "{told}"
            );
        }
    }

    #[test]
    fn browsers_come_back_over_https_or_on_this_machine() {
        let set = |url: &str| load(&[("TSUNAMI_HTTP__PUBLIC_URL", url)]);
        for good in [
            "https://gateway.example.com",
            "https://example.com/gateway",
            "http://127.0.0.1:8480",
        ] {
            assert!(set(good).is_ok(), "{good}");
        }
        for bad in [
            "http://gateway.example.com",
            "https://gateway.example.com/",
            "https://gateway.example.com?x",
            "https://a:b@gateway.example.com",
            "gateway",
        ] {
            let told = set(bad).unwrap_err().to_string();
            assert!(told.contains("http.public_url"), "{told}");
        }
    }

    #[test]
    fn what_the_bridge_or_a_lease_cannot_bear_is_refused_by_name() {
        let refused = |name: &str, value: &str| {
            let text = load(&[(name, value)]).unwrap_err().to_string();
            text.contains("must be at most") && text.contains(name)
        };
        for (name, most, more) in [
            ("TSUNAMI_SKILLS__REQUEST_TIMEOUT_SECONDS", "100", "101"),
            ("TSUNAMI_SKILLS__REPLY_BYTES_MAX", "16777216", "16777217"),
        ] {
            load(&[(name, most)]).unwrap();
            assert!(refused(name, more), "{name}");
        }
        // The bridge's own limits, which ours must not exceed.
        let limits = include_str!("../../plugins/openclaw-bridge/limits.js");
        assert!(limits.contains("MAX_RESPONSE_BYTES = 16 * MIB;"));
        assert!(limits.contains("MAX_TIMEOUT_MS = 300 * SECOND;"));
    }

    #[test]
    fn a_variable_that_is_no_text_is_passed_over_unless_it_is_a_setting() {
        use std::os::unix::ffi::OsStringExt;
        let variable = |name: &[u8], value: &[u8]| {
            let texts = [name, value].map(|bytes| OsString::from_vec(bytes.to_vec()));
            let [name, value] = texts;
            [(name, value)].into_iter()
        };
        let bad = b"caf\xe9";
        assert_eq!(texts(variable(b"LANG", b"C")).unwrap().count(), 1);
        assert_eq!(texts(variable(b"OTHER", bad)).unwrap().count(), 0);
        assert_eq!(texts(variable(bad, b"x")).unwrap().count(), 0);
        let error = texts(variable(b"TSUNAMI_DATABASE__URL", bad)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("database.url") && error.contains("UTF-8"),
            "{error}"
        );
    }

    #[test]
    fn a_private_host_names_its_port_and_is_none_of_the_gateways_own_servers() {
        let with = |entry: &str| {
            let env = [
                ("TSUNAMI_HTTP__LISTEN", "0.0.0.0:8480".to_owned()),
                ("TSUNAMI_TEMPORAL__URL", "http://127.0.0.1:7233".to_owned()),
                (
                    "TSUNAMI_DATABASE__URL",
                    "postgres://app@db.internal/tsunami".to_owned(),
                ),
                (
                    "TSUNAMI_SKILLS__PRIVATE_NETWORK_HOSTS",
                    format!("[\"{entry}\"]"),
                ),
            ];
            let env = env.map(|(name, value)| (name.to_owned(), value));
            Config::load(None, env.into_iter()).map_err(|error| error.to_string())
        };
        for right in ["127.0.0.1:9000", "github.internal:443", "db.internal:443"] {
            assert!(with(right).is_ok(), "{right}");
        }
        let told = with("localhost").unwrap_err();
        assert!(
            told.contains("names no port") && told.contains("github.internal:443"),
            "{told}"
        );
        for own in [
            "127.0.0.1:8480",
            "localhost:7233",
            "[::1]:7233",
            "db.internal:5432",
        ] {
            let told = with(own).unwrap_err();
            assert!(told.contains("of the gateway's own"), "{own}: {told}");
        }
    }

    #[test]
    fn the_dearest_of_the_operators_costs_that_fits_holds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tsunami.toml");
        let with = |costs: &str| {
            let text = format!("[skills]\nleast_costs_micro_usd = {costs}\n");
            std::fs::write(&file, text).unwrap();
            Config::load(Some(&file), std::iter::empty()).map_err(|error| error.to_string())
        };
        let config = with(r#"{ "*" = 10, "slack" = 5, "slack.send_message" = 20 }"#).unwrap();
        let least = |skill, action| config.skills.least_cost(skill, action);
        assert_eq!(least("slack", "send_message"), Some(20));
        assert_eq!(least("slack", "add_reaction"), Some(10));
        assert_eq!(least("own", "send_message"), Some(10));
        assert_eq!(Config::default().skills.least_cost("own", "x"), None);
        for wrong in [
            r#"{ "a.b.c" = 1 }"#,
            r#"{ "" = 1 }"#,
            r#"{ "Slack" = 1 }"#,
            r#"{ "*" = 1000000000001 }"#,
        ] {
            let told = with(wrong).unwrap_err();
            assert!(told.contains("whatsapp.send_text"), "{told}");
        }
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_problem_and_an_example() {
        let text = |pairs| load(pairs).unwrap_err().to_string();
        let wrong_type = text(&[("TSUNAMI_HTTP__REQUESTS_IN_FLIGHT_MAX", "many")]);
        assert!(
            wrong_type.contains("http.requests_in_flight_max")
                && wrong_type.contains("requests_in_flight_max = 512"),
            "{wrong_type}"
        );
        let unknown = text(&[("TSUNAMI_HTTP__PORT", "80")]);
        assert!(
            unknown.contains("port") && unknown.contains("listen"),
            "{unknown}"
        );
        let tenant = text(&[(
            "TSUNAMI_PLUGINS__TENANTS__01890000-0000-7000-8000-000000000001__CALL_TIMEOUT_MS",
            "0",
        )]);
        assert!(
            tenant.contains("plugins.tenants.01890000") && tenant.contains("at least 1"),
            "{tenant}"
        );
        let element = text(&[(
            "TSUNAMI_MARKETPLACE__REGISTRIES",
            "[{ hots = \"ghcr.io\" }]",
        )]);
        assert!(
            element.contains("`marketplace.registries[0]")
                && element.contains("(environment: TSUNAMI_MARKETPLACE__REGISTRIES)")
                && element.contains("registries = [{ host"),
            "{element}"
        );
        let zero = text(&[("TSUNAMI_TASKS__ATTEMPTS_MAX", "0")]);
        assert!(
            zero.contains("tasks.attempts_max") && zero.contains("at least 1"),
            "{zero}"
        );
    }
}
