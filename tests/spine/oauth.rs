//! A token that is due is renewed by the call that needs it: once, however many calls there are.

use crate::{Stories, Theatre, World, shared};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tsunami_tests::{
    api::{Answer, Api},
    company::text,
    eventually,
    provider::{CLIENT_ID, CLIENT_SECRET, Provider, sign_in},
    recorder::Recorder,
};

/// Within the time in which a token is renewed before it is used.
const EXPIRES_IN_SECONDS: u32 = 30;
/// How long the provider takes, where a second call must come meanwhile.
const SLOW: Duration = Duration::from_secs(3);

pub fn stories(stories: &mut Stories, theatre: &Arc<Theatre>) {
    shared(
        stories,
        theatre,
        "a_call_whose_token_is_due_renews_it_once_and_goes_out_with_the_new_one",
        renewed,
    );
}

/// The company's mailbox, which somebody grants at a provider.
struct Mail {
    world: Arc<World>,
    provider: Provider,
    /// Stands where Gmail would.
    service: Recorder,
    plugin: String,
}

impl Mail {
    async fn granted(world: Arc<World>) -> Self {
        let provider = Provider::start_for(&world.gateway.url()).await;
        let service = Recorder::start().await;
        let plugin = text(&world.acme.install("gmail").await["id"]);
        let settings = json!({ "settings": { "base_url": service.url } });
        world.acme.configure("gmail", &settings).await;
        let mail = Self {
            world,
            provider,
            service,
            plugin,
        };
        mail.sign_in().await;
        mail
    }

    /// The company has the skill no more.
    async fn take_out(&self) {
        let path = format!("/plugins/{}", self.plugin);
        self.world.acme.owner.delete(&path).await.ok();
    }

    async fn sign_in(&self) {
        let owner = &self.world.acme.owner;
        let client = json!({
            "skill": "gmail", "key": "access_token", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
            "issuer": self.provider.issuer, "hosts": [self.provider.host()],
        });
        owner.put("/skill-creds/oauth/client", &client).await.ok();
        let asked = json!({ "skill": "gmail", "key": "access_token" });
        let begun = owner.post("/skill-creds/oauth/start", &asked).await.ok();
        let back = sign_in(&text(&begun["authorization_url"])).await;
        let back = back.expect("the browser comes back");
        let anybody = self.world.gateway.anybody();
        let page = anybody
            .get(&format!("/skill-creds/oauth/callback?{back}"))
            .await;
        let (_, rest) = page.text.split_once("id=\"code\">").expect("a code");
        let (code, _) = rest.split_once('<').expect("its end");
        let confirmed = json!({ "sign_in_id": begun["id"], "code": code });
        owner
            .post("/skill-creds/oauth/confirm", &confirmed)
            .await
            .ok();
    }

    /// Nothing but a call looks after it: it is not due for the sweep.
    async fn expires_soon(&self) {
        let mut database = self.world.gateway.database("postgres").await;
        for table in ["oauth_grants", "skill_credentials"] {
            let changed = sqlx::query(sqlx::AssertSqlSafe(format!(
                "update {table} set expires_at = now() + interval '{EXPIRES_IN_SECONDS} s'
                 where tenant_id = '{}' and expires_at is not null and status = 'active'",
                self.world.acme.id
            )))
            .execute(&mut database)
            .await
            .expect("it expires soon");
            assert_eq!(changed.rows_affected(), 1, "{table}");
        }
    }

    fn answers_next(&self) {
        let profile = json!({ "emailAddress": "ada@example.com", "messagesTotal": 1, "threadsTotal": 1, "historyId": "1" });
        let json = vec![("content-type", "application/json".to_owned())];
        self.service.answer_next(200, json, profile.to_string());
    }

    async fn call(&self) -> Answer {
        call(&self.world.acme.owner).await
    }

    /// What the calls that arrived were sent with, the first first.
    fn sent_with(&self) -> Vec<String> {
        let arrivals = self.service.arrivals();
        arrivals.into_iter().map(|a| a.authorization).collect()
    }

    fn last(&self) -> String {
        self.sent_with().pop().expect("a call arrived")
    }
}

async fn call(owner: &Api) -> Answer {
    let body = json!({ "params": {} });
    owner.post("/skills/gmail/get_profile", &body).await
}

#[track_caller]
fn succeeded(answer: Answer) -> Value {
    let told = answer.ok();
    assert_eq!(told["status"], "succeeded", "{told}");
    told
}

async fn renewed(world: Arc<World>) {
    let mail = Mail::granted(world).await;
    mail.answers_next();
    succeeded(mail.call().await);
    let first = mail.last();
    assert!(first.starts_with("Bearer "), "{first}");
    assert_eq!(mail.provider.asked("refresh").await, 0);

    mail.expires_soon().await;
    mail.answers_next();
    succeeded(mail.call().await);
    let second = mail.last();
    assert_ne!(second, first, "the call went out with the old token");
    assert_eq!(mail.provider.asked("refresh").await, 1);

    // The new one serves the next call.
    mail.answers_next();
    succeeded(mail.call().await);
    assert_eq!(mail.last(), second);
    assert_eq!(mail.provider.asked("refresh").await, 1);

    two_at_once(&mail, &second).await;
    one_while_it_is_renewed(&mail).await;
    away_for_a_moment(&mail).await;
    mail.take_out().await;
}

async fn two_at_once(mail: &Mail, before: &str) {
    mail.expires_soon().await;
    mail.answers_next();
    mail.answers_next();
    let (one, other) = futures::join!(mail.call(), mail.call());
    succeeded(one);
    succeeded(other);
    let sent = mail.sent_with();
    let [.., one, other] = sent.as_slice() else {
        panic!("two calls arrived: {sent:?}");
    };
    assert_eq!(one, other);
    assert_ne!(one, before, "the calls went out with the old token");
    assert_eq!(mail.provider.asked("refresh").await, 2);
}

/// It waits for the one that asks the provider, and asks nobody.
async fn one_while_it_is_renewed(mail: &Mail) {
    let (asked, arrived) = (mail.provider.asked("token").await, mail.sent_with().len());
    mail.expires_soon().await;
    mail.answers_next();
    mail.answers_next();
    let slow = u32::try_from(SLOW.as_millis()).expect("milliseconds");
    mail.provider.trouble(0, slow).await;
    let owner = mail.world.acme.owner.clone();
    let first = tokio::spawn(async move { call(&owner).await });
    eventually("the provider is asked", || async {
        (mail.provider.asked("token").await > asked).then_some(())
    })
    .await;
    succeeded(mail.call().await);
    succeeded(first.await.expect("it ends"));
    mail.provider.trouble(0, 0).await;
    let sent = mail.sent_with();
    assert_eq!(sent.len(), arrived + 2);
    assert_eq!(sent[arrived], sent[arrived + 1]);
    assert_ne!(sent[arrived], sent[arrived - 1]);
    assert_eq!(mail.provider.asked("token").await, asked + 1);
    assert_eq!(mail.provider.asked("refresh").await, 3);
}

/// A token that is still good is used where it cannot be renewed just now; the provider is asked once all the same.
async fn away_for_a_moment(mail: &Mail) {
    let (asked, before) = (mail.provider.asked("token").await, mail.last());
    mail.expires_soon().await;
    mail.provider.trouble(503, 0).await;
    mail.answers_next();
    succeeded(mail.call().await);
    mail.provider.trouble(0, 0).await;
    assert_eq!(mail.last(), before);
    assert_eq!(mail.provider.asked("token").await, asked + 1);
    assert_eq!(mail.provider.asked("refresh").await, 3);
}
