//! What an instance has on the disk, and how its gateway is called.

use super::LocalSettings;
use crate::InstanceSpec;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tsunami_process::Spec;

/// An instance's folder.
#[derive(Clone, Debug)]
pub struct Home(pub PathBuf);

impl Home {
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("pid")
    }

    pub fn port_file(&self) -> PathBuf {
        self.0.join("port")
    }

    /// What the gateway writes to its standard output and error.
    pub fn log(&self) -> PathBuf {
        self.0.join("gateway.log")
    }

    fn config(&self) -> PathBuf {
        self.0.join("config/openclaw.json")
    }

    fn bridge(&self) -> PathBuf {
        self.0.join("plugins/openclaw-bridge")
    }

    /// Makes the folder itself, which nobody else may enter.
    pub fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::set_permissions(&self.0, Permissions::from_mode(0o700))
    }

    /// Writes what the gateway reads. Not while one runs.
    pub fn lay_out(
        &self,
        port: u16,
        spec: &InstanceSpec,
        settings: &LocalSettings,
    ) -> io::Result<()> {
        for below in ["home", "tmp", "state", "config", "plugins"] {
            fs::create_dir_all(self.0.join(below))?;
        }
        copy_plugin(&settings.bridge_dir, &self.bridge())?;
        fs::write(self.config(), self.config_text(port, spec)?)
    }

    /// Whether a running gateway was started with what [`Home::lay_out`] would write now.
    pub fn is_laid_out(&self, port: u16, spec: &InstanceSpec, settings: &LocalSettings) -> bool {
        let same_config =
            || Ok::<_, io::Error>(fs::read(self.config())? == self.config_text(port, spec)?);
        same_config().unwrap_or(false)
            && is_same_plugin(&settings.bridge_dir, &self.bridge()).unwrap_or(false)
    }

    fn config_text(&self, port: u16, spec: &InstanceSpec) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(&self.gateway_config(port, spec))?)
    }

    /// No model, no channel, no skill, no schedule: the gateway does what the bridge is asked, and nothing by itself.
    fn gateway_config(&self, port: u16, spec: &InstanceSpec) -> Value {
        let state = self.0.join("state");
        json!({
            "gateway": {
                "mode": "local", "bind": "loopback", "port": port, "auth": { "mode": "token" },
                "controlUi": { "enabled": false }, "reload": { "mode": "off" },
            },
            "discovery": { "mdns": { "mode": "off" } },
            "update": { "checkOnStart": false },
            "telemetry": { "enabled": false },
            "logging": { "file": state.join("gateway.log"), "level": "info" },
            "plugins": {
                "allow": ["openclaw-bridge"],
                "slots": { "memory": "none" },
                "load": { "paths": [self.bridge()] },
                "entries": { "openclaw-bridge": { "enabled": true, "config": {
                    "journalDir": state.join("servicetsunami-journal"),
                    "approvedDevices": [{ "deviceId": spec.device_id, "scopes": spec.device_scopes }],
                } } },
            },
            "models": { "mode": "replace", "catalogRefresh": { "enabled": false }, "providers": {} },
            "agents": { "defaults": { "heartbeat": { "every": "0m" }, "skipBootstrap": true } },
            "tools": { "deny": ["*"] },
            "skills": { "allowBundled": [] },
            "cron": { "enabled": false },
        })
    }

    /// The gateway as a process. The token is in its environment and nowhere else.
    pub fn process(&self, port: u16, spec: &InstanceSpec, settings: &LocalSettings) -> Spec {
        let below = |name: &str| self.0.join(name).into_os_string();
        let mut path = settings
            .node
            .parent()
            .unwrap_or(Path::new(""))
            .as_os_str()
            .to_owned();
        path.push(":/usr/local/bin:/usr/bin:/bin");
        let environment: [(&str, OsString); 13] = [
            ("HOME", below("home")),
            ("TMPDIR", below("tmp")),
            ("PATH", path),
            ("OPENCLAW_STATE_DIR", below("state")),
            ("OPENCLAW_CONFIG_PATH", self.config().into()),
            (
                "OPENCLAW_GATEWAY_TOKEN",
                spec.gateway_token.expose_secret().into(),
            ),
            ("OPENCLAW_CONFIG_READONLY", "1".into()),
            ("OPENCLAW_DISABLE_BONJOUR", "1".into()),
            ("OPENCLAW_EXEC_SHELL_SNAPSHOT", "0".into()),
            ("OPENCLAW_NO_AUTO_UPDATE", "1".into()),
            ("OPENCLAW_NO_RESPAWN", "1".into()),
            ("OPENCLAW_OFFLINE", "1".into()),
            ("OPENCLAW_SKIP_CHANNELS", "1".into()),
        ];
        let port = port.to_string();
        let mut args: Vec<OsString> = vec![settings.openclaw_dir.join("openclaw.mjs").into()];
        args.extend(["gateway", "run", "--bind", "loopback", "--port", &port].map(OsString::from));
        Spec {
            name: spec.name.clone(),
            program: settings.node.clone(),
            args,
            env: environment
                .map(|(name, value)| (name.into(), value))
                .to_vec(),
            dir: self.0.clone(),
            log_file: self.log(),
            pid_file: self.pid_file(),
            run_as: None,
        }
    }

    /// OpenClaw's own look at the configuration, in the gateway's environment.
    pub fn validation(&self, port: u16, spec: &InstanceSpec, settings: &LocalSettings) -> Spec {
        let mut process = self.process(port, spec, settings);
        process.args.truncate(1);
        process
            .args
            .extend(["config", "validate"].map(OsString::from));
        process
    }
}

/// Copies the plugin's files into a folder that only the owner may write: the gateway loads nothing else.
fn copy_plugin(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(to)?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    for (name, content) in plugin_files(from)? {
        fs::write(to.join(&name), content)?;
        fs::set_permissions(to.join(&name), Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn is_same_plugin(one: &Path, other: &Path) -> io::Result<bool> {
    Ok(plugin_files(one)? == plugin_files(other)?)
}

/// The regular files of the folder, by name; folders, as that of the tests, are no part of what is run.
fn plugin_files(folder: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push((entry.file_name(), fs::read(entry.path())?));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_device_port_or_bridge_is_noticed_and_the_token_is_in_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let bridge = dir.path().join("bridge");
        fs::create_dir_all(bridge.join("test")).unwrap();
        fs::write(bridge.join("index.js"), "1").unwrap();
        fs::write(bridge.join("test/a.js"), "2").unwrap();
        let settings = LocalSettings {
            data_dir: dir.path().to_owned(),
            node: "/node/bin/node".into(),
            openclaw_dir: "/openclaw".into(),
            bridge_dir: bridge.clone(),
        };
        let spec = InstanceSpec {
            name: "openclaw-1".into(),
            gateway_token: "canary-token".into(),
            device_id: "d1".into(),
            device_scopes: vec!["operator.write".into()],
        };
        let home = Home(dir.path().join("openclaw-1"));
        home.make().unwrap();
        assert!(!home.is_laid_out(1, &spec, &settings));
        home.lay_out(1, &spec, &settings).unwrap();
        assert!(home.is_laid_out(1, &spec, &settings));
        assert!(!home.bridge().join("test").exists());
        assert!(
            !fs::read_to_string(home.config())
                .unwrap()
                .contains("canary-token")
        );
        assert!(
            !format!("{spec:?} {:?}", home.process(1, &spec, &settings)).contains("canary-token")
        );

        assert!(!home.is_laid_out(2, &spec, &settings));
        let other_device = InstanceSpec {
            device_id: "d2".into(),
            ..spec.clone()
        };
        assert!(!home.is_laid_out(1, &other_device, &settings));
        fs::write(bridge.join("index.js"), "3").unwrap();
        assert!(!home.is_laid_out(1, &spec, &settings));
        home.lay_out(1, &spec, &settings).unwrap();
        assert!(home.is_laid_out(1, &spec, &settings));
    }
}
