use crate::{EmbeddedError, io, must_exist, not_up};
use nix::{
    sys::signal::Signal,
    unistd::{Uid, User, chown},
};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tsunami_process::{Process, Spec};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_GRACE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// The folder with `bin/postgres` and `bin/initdb`.
    pub install_dir: PathBuf,
    /// What belongs to this server: data, log, pid.
    pub dir: PathBuf,
    /// Without fsync: for tests whose data nobody will miss.
    pub ephemeral: bool,
}

/// A role to make; the first one owns the database.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    pub name: &'static str,
    /// May make roles of its own.
    pub create_role: bool,
}

/// A private PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    socket_dir: PathBuf,
    log: PathBuf,
}

impl Postgres {
    /// Starts the server, or takes over the one of a run that was killed.
    pub async fn start(settings: &PostgresSettings) -> Result<Self, EmbeddedError> {
        let program = must_exist(settings.install_dir.join("bin/postgres"), "TSUNAMI_POSTGRES_BIN")?;
        let home = home_for(&settings.dir)?;
        let run_as = run_as()?;
        make_private(&home, run_as)?;
        let (data, socket_dir, log, pid_file) = (home.join("data"), socket_dir(&home), home.join("postgres.log"), home.join("pid"));
        make_private(&socket_dir, run_as)?;
        if let Some(process) = Process::adopt(&pid_file) {
            let server = Self { process, socket_dir, log };
            server.wait_ready().await?;
            return Ok(server);
        }
        if !data.join("PG_VERSION").exists() {
            initialise(settings, &data, run_as)?;
        }
        // Of a server that was killed: nobody else uses this folder, and the pid may be another's by now.
        let _ = std::fs::remove_file(data.join("postmaster.pid"));
        let process = Process::spawn(&Spec {
            name: "postgres".into(),
            program,
            args: arguments(&data, &socket_dir, settings.ephemeral),
            env: vec![("LC_ALL".into(), "C.UTF-8".into()), ("TZ".into(), "UTC".into())],
            dir: home.clone(),
            log_file: log.clone(),
            pid_file,
            run_as,
        })?;
        let server = Self { process, socket_dir, log };
        server.wait_ready().await?;
        Ok(server)
    }

    async fn wait_ready(&self) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let error = match PgConnection::connect(&self.url("postgres", "postgres")).await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(error) => error,
            };
            if !self.process.is_running() {
                return Err(not_up("PostgreSQL", "it ended", &self.log));
            }
            if Instant::now() > deadline {
                return Err(not_up("PostgreSQL", error.to_string(), &self.log));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Makes the roles and the database, where they are not there.
    pub async fn create_database(&self, database: &str, roles: &[Role]) -> Result<(), EmbeddedError> {
        let mut connection = PgConnection::connect(&self.url("postgres", "postgres")).await?;
        for role in roles {
            let there: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)").bind(role.name).fetch_one(&mut connection).await?;
            if !there {
                let rights = if role.create_role { " createrole" } else { "" };
                connection.execute(AssertSqlSafe(format!("create role \"{}\" login{rights}", role.name))).await?;
            }
        }
        let there: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)").bind(database).fetch_one(&mut connection).await?;
        if !there && let Some(owner) = roles.first() {
            connection.execute(AssertSqlSafe(format!("create database \"{database}\" owner \"{}\"", owner.name))).await?;
        }
        connection.close().await?;
        Ok(())
    }

    /// Removes a database, with whoever is connected to it.
    pub async fn drop_database(&self, database: &str) -> Result<(), EmbeddedError> {
        let mut connection = PgConnection::connect(&self.url("postgres", "postgres")).await?;
        connection.execute(AssertSqlSafe(format!("drop database if exists \"{database}\" with (force)"))).await?;
        connection.close().await?;
        Ok(())
    }

    /// Where to connect to, over the Unix socket.
    pub fn url(&self, database: &str, role: &str) -> String {
        let host = self.socket_dir.display().to_string().replace('/', "%2F");
        format!("postgres://{role}@localhost/{database}?host={host}")
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Ends it in good order: sessions are cut, everything is on the disk.
    pub async fn stop(self) {
        self.process.stop(Signal::SIGINT, STOP_GRACE).await;
    }
}

fn arguments(data: &Path, socket_dir: &Path, ephemeral: bool) -> Vec<OsString> {
    let mut settings = vec!["listen_addresses=", "shared_buffers=64MB", "max_connections=200", "wal_level=minimal", "max_wal_senders=0", "log_min_messages=warning"];
    if ephemeral {
        settings.extend(["fsync=off", "full_page_writes=off"]);
    }
    let mut args: Vec<OsString> = vec!["-D".into(), data.into(), "-k".into(), socket_dir.into()];
    for setting in settings {
        args.extend(["-c".into(), setting.into()]);
    }
    args
}

fn initialise(settings: &PostgresSettings, data: &Path, run_as: Option<(u32, u32)>) -> Result<(), EmbeddedError> {
    use std::os::unix::process::CommandExt;
    let initdb = must_exist(settings.install_dir.join("bin/initdb"), "TSUNAMI_POSTGRES_BIN")?;
    let mut command = Command::new(initdb);
    command.arg("-D").arg(data).args(["-U", "postgres", "-A", "peer", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions"]);
    command.env_clear().env("LC_ALL", "C.UTF-8").env("TZ", "UTC").current_dir(data.parent().unwrap_or(data));
    if let Some((uid, gid)) = run_as {
        command.uid(uid).gid(gid);
    }
    let output = command.output().map_err(io("cannot run initdb"))?;
    if !output.status.success() {
        let _ = std::fs::remove_dir_all(data);
        return Err(EmbeddedError::Io { what: "initdb failed".into(), cause: std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()) });
    }
    let me = User::from_uid(Uid::effective()).ok().flatten().map_or_else(|| "root".into(), |user| user.name);
    std::fs::write(data.join("pg_hba.conf"), "# The operating system says who connects; only the user that started the server may.\nlocal all all peer map=tsunami\n")
        .and_then(|()| std::fs::write(data.join("pg_ident.conf"), format!("tsunami \"{me}\" all\n")))
        .map_err(io("cannot write PostgreSQL's configuration"))
}

/// PostgreSQL refuses root; everybody else runs it as themselves.
fn run_as() -> Result<Option<(u32, u32)>, EmbeddedError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let nobody = User::from_name("nobody").map_err(|e| io("cannot look up the user nobody")(e.into()))?;
    Ok(Some(nobody.map_or((65534, 65534), |user| (user.uid.as_raw(), user.gid.as_raw()))))
}

fn make_private(dir: &Path, owner: Option<(u32, u32)>) -> Result<(), EmbeddedError> {
    std::fs::create_dir_all(dir).map_err(io(format!("cannot make {}", dir.display())))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(io(format!("cannot protect {}", dir.display())))?;
    if let Some((uid, gid)) = owner {
        chown(dir, Some(uid.into()), Some(gid.into())).map_err(|e| io(format!("cannot give {} to nobody", dir.display()))(e.into()))?;
    }
    Ok(())
}

/// The folder itself, unless root asks for one that another user could not reach.
fn home_for(dir: &Path) -> Result<PathBuf, EmbeddedError> {
    std::fs::create_dir_all(dir).map_err(io(format!("cannot make {}", dir.display())))?;
    let dir = dir.canonicalize().map_err(io(format!("cannot find {}", dir.display())))?;
    let reachable = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    if !Uid::effective().is_root() || dir.ancestors().skip(1).all(reachable) {
        return Ok(dir);
    }
    let elsewhere = PathBuf::from("/var/tmp").join(format!("tsunami-{}", short_hash(&dir)));
    tracing::info!(folder = %elsewhere.display(), "PostgreSQL runs as nobody, who cannot reach the data folder; its data is kept here");
    Ok(elsewhere)
}

/// A socket's path has at most 107 bytes, so it does not lie in the data folder.
fn socket_dir(home: &Path) -> PathBuf {
    std::env::temp_dir().join(format!("tsunami-{}", short_hash(home)))
}

fn short_hash(path: &Path) -> String {
    hex::encode(&Sha256::digest(path.as_os_str().as_encoded_bytes())[..6])
}
