//! What the slices' own tests stand on: a PostgreSQL with all migrations, and an [`App`] over it. There is no Temporal
//! and no OpenClaw; what needs them is told in `tests/`.

use crate::{
    app::App,
    config::{Config, Secret},
    db::MIGRATOR,
    id::{SkillCallId, TaskId, TenantId},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tsunami_embedded::{Postgres, PostgresSettings, Role};
use tsunami_plugin_host::adapter::Action;
use tsunami_sealed::KeyFile;

const DATABASE: &str = "tsunami";

/// An action that posts something, and nothing more.
pub fn action() -> Action {
    let action = json!({
        "name": "post", "title": "Post", "summary": "Posts.", "risk": "Write", "params_schema": "{}", "output_schema": "{}",
        "examples": [], "credentials": [], "idempotent": false, "pagination": null, "scopes": [],
    });
    serde_json::from_value(action).expect("an action")
}

const ROLES: [Role; 3] = [
    Role {
        name: "tsunami_owner",
        create_role: true,
    },
    Role {
        name: "tsunami_app",
        create_role: false,
    },
    Role {
        name: "tsunami_system",
        create_role: false,
    },
];
/// How long the server has to end when the test has.
const END_WAIT: Duration = Duration::from_secs(10);

/// Ends with the test.
pub struct Ground {
    pub app: App,
    pub tenant: TenantId,
    server: Postgres,
    _folder: TempDir,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Ground {
    /// With one tenant.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL may have to run as somebody else, who must get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let tools = crate::config::env_var("TSUNAMI_TOOLS_DIR")
            .map_or_else(|| repository().join(".tools"), PathBuf::from);
        let server = Postgres::start(&PostgresSettings {
            install_dir: tools.join("postgres"),
            dir: folder.path().join("postgres"),
            ephemeral: true,
        })
        .await
        .unwrap();
        server.create_database(DATABASE, &ROLES).await.unwrap();
        let mut owner = PgConnection::connect(&server.url(DATABASE, ROLES[0].name))
            .await
            .unwrap();
        MIGRATOR.run(&mut owner).await.unwrap();
        let key_file = folder.path().join("vault-keys");
        KeyFile::create_if_missing(&key_file).unwrap();
        let mut config = Config::default();
        config.database.url = Secret::new(server.url(DATABASE, ROLES[1].name));
        config.database.system_url = Secret::new(server.url(DATABASE, ROLES[2].name));
        config.vault.key_file = key_file;
        config.instances.data_dir = folder.path().join("instances");
        config.instances.tools_dir = tools;
        config.instances.bridge_dir = repository().join("plugins/openclaw-bridge");
        let ground = Self {
            app: App::new(config).await.unwrap(),
            tenant: TenantId::fresh(),
            server,
            _folder: folder,
        };
        let tenant = ground.tenant;
        let insert =
            format!("insert into tenants (id, name, slug) values ('{tenant}', 'Acme', 'acme')");
        ground.write(&insert).await;
        ground
    }

    async fn superuser(&self) -> PgConnection {
        PgConnection::connect(&self.server.url(DATABASE, "postgres"))
            .await
            .unwrap()
    }

    /// Brings rows into a state that would take long to come about, past all rules.
    pub async fn write(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut self.superuser().await)
            .await
            .unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// The one text that a query gives; an empty one where it gives nothing.
    pub async fn read(&self, sql: &str) -> String {
        let found: Option<Option<String>> = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_optional(&mut self.superuser().await)
            .await
            .unwrap_or_else(|error| panic!("{error}: {sql}"));
        found.flatten().unwrap_or_default()
    }

    /// A call with this status, of a task where one is named.
    pub async fn call(&self, status: &str, task: Option<TaskId>) -> SkillCallId {
        let (id, tenant) = (SkillCallId::fresh(), self.tenant);
        let task = task.map_or("null".to_owned(), |task| format!("'{task}'"));
        self.write(&format!(
            "insert into skill_calls (id, tenant_id, task_id, actor, idempotency_key, request_sha256, skill_name, action, params, status, started_at)
             values ('{id}', '{tenant}', {task}, 'somebody', '{id}', '', 'slack', 'send_message', '{{}}', '{status}',
                     case when '{status}' in ('running', 'outcome_unknown') then now() end)"
        ))
        .await;
        id
    }

    /// A request of a call, answered or not.
    pub async fn request(&self, call: SkillCallId, seq: i32, status: &str) {
        let tenant = self.tenant;
        self.write(&format!(
            "insert into skill_call_requests (tenant_id, call_id, seq, digest, status, reply)
             values ('{tenant}', '{call}', {seq}, 'd', '{status}', case when '{status}' = 'finished' then '{{}}'::jsonb end)"
        ))
        .await;
    }

    pub async fn status_of(&self, call: SkillCallId) -> String {
        self.read(&format!(
            "select status from skill_calls where id = '{call}'"
        ))
        .await
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let pid = self.server.pid();
        let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        let until = Instant::now() + END_WAIT;
        let lives = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, state)| !state.starts_with('Z'))
        };
        while lives() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
