//! Those who look at a flow.

use super::{
    watch::{LINGER, MOST_FLOWS},
    *,
};
use crate::{held::Held, problem::Problem};

/// Those who watch the flows of this server.
fn watchers(rig: &Rig) -> Watchers {
    Watchers::new(Client::new(Arc::new(rig.server.clone())), Arc::new(settings()), Stats::default())
}

/// The states that a viewer gets until there is nothing new.
async fn next(viewer: &mut Viewer) -> (String, Value) {
    match viewer.next().await {
        Some(Published::State { id, json, .. }) => {
            (id.to_string(), serde_json::from_str(&json).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

/// What comes in this time, or fails the test.
async fn soon<T>(news: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), news).await.expect("news")
}

#[tokio::test(start_paused = true)]
async fn many_viewers_cost_the_server_what_one_does_and_none_cost_nothing() {
    let mut costs = Vec::new();
    for count in [1, 20] {
        let rig = Rig::new("await-chain", work(3));
        in_step_2(&rig);
        let watchers = watchers(&rig);
        let mut viewers: Vec<_> = (0..count).map(|_| watchers.watch("f").unwrap()).collect();
        let (id, _) = next(&mut viewers[0]).await;
        let before = rig.requests();
        tokio::time::sleep(Duration::from_secs(5)).await;
        costs.push(rig.requests() - before);

        drop(viewers);
        let before = rig.requests();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(rig.requests() - before <= 2, "nobody looks");
        // A client that comes back soon gets the same state.
        let mut viewer = watchers.watch("f").unwrap();
        assert_eq!(next(&mut viewer).await.0, id);
        rig.settled("f.0.1", 2_030, ("b", 1), json!(null));
        assert!(viewer.changed().await);
        assert_ne!(next(&mut viewer).await.0, id);
    }
    assert_eq!(costs[0], costs[1]);
    assert!(costs[0] > 10, "{costs:?}");
}

#[tokio::test(start_paused = true)]
async fn those_who_look_hear_that_the_server_is_gone_and_that_it_is_back() {
    let rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    let watchers = watchers(&rig);
    let mut viewer = watchers.watch("f").unwrap();
    let (_, before) = next(&mut viewer).await;
    assert_eq!(before["trouble"], Value::Null);

    let gone = own_clock();
    rig.world.lock().unwrap().down = true;
    assert!(soon(viewer.changed()).await);
    let (_, mut during) = next(&mut viewer).await;
    let trouble = during["trouble"].take();
    assert!(trouble["reason"].as_str().unwrap().contains("the Resonate Server"), "{trouble}");
    // The last look before that, by the server's clock, which is close to the own one here.
    let as_of = trouble["as_of"].as_i64().unwrap();
    assert!((before["started"].as_i64().unwrap()..=gone).contains(&as_of), "{as_of}, {gone}");
    assert_eq!(during["rows"], before["rows"], "what was known is kept");
    // It is said once.
    let silence = tokio::time::timeout(Duration::from_secs(10), viewer.changed()).await;
    assert!(silence.is_err());

    rig.world.lock().unwrap().down = false;
    rig.settled("f.0.1", 2_030, ("b", 1), json!(null));
    assert!(soon(viewer.changed()).await);
    let (_, after) = next(&mut viewer).await;
    assert_eq!(after["trouble"], Value::Null);
    assert_ne!(after["rows"], before["rows"]);
    // It remembers when that was, for as long as a takeover.
    let started = before["started"].as_i64().unwrap();
    let outage: Vec<_> = story(&after).into_iter().filter(|line| line.contains("reach")).collect();
    assert!(outage[0].starts_with(&format!("{} From here on", as_of - started)), "{outage:?}");
    let back: i64 = outage[1].split(' ').next().unwrap().parse().unwrap();
    assert!((gone..=own_clock()).contains(&(back + started)), "{outage:?}, {gone}");
    assert_eq!(outage.len(), 2);
    drop(viewer);
    tokio::time::sleep(Duration::from_mins(9)).await;
    let mut viewer = watchers.watch("f").unwrap();
    assert_eq!(next(&mut viewer).await.1["story"], after["story"]);
}

#[tokio::test(start_paused = true)]
async fn those_who_look_hear_that_the_server_has_lost_the_flow() {
    let rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    let watchers = watchers(&rig);
    let mut viewer = watchers.watch("f").unwrap();
    next(&mut viewer).await;
    *rig.world.lock().unwrap() = World::default();
    assert!(soon(viewer.changed()).await);
    assert!(matches!(viewer.next().await, Some(Published::Unknown)));
}

#[tokio::test(start_paused = true)]
async fn a_flow_with_a_takeover_is_remembered_for_longer() {
    for (interrupted, expected) in [(true, true), (false, false)] {
        let rig = Rig::new("await-chain", work(3));
        in_step_2(&rig);
        let watchers = watchers(&rig);
        let mut viewer = watchers.watch("f").unwrap();
        next(&mut viewer).await;
        if interrupted {
            rig.task("f.0", "pending", 1, None);
            viewer.changed().await;
        }
        let (id, _) = next(&mut viewer).await;
        drop(viewer);
        tokio::time::sleep(Duration::from_mins(9)).await;
        let mut viewer = watchers.watch("f").unwrap();
        assert_eq!(next(&mut viewer).await.0 == id, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_nobody_looks_at_makes_room_for_another_one() {
    let rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    let watchers = watchers(&rig);
    let copy = |n: usize| {
        let mut world = rig.world.lock().unwrap();
        let first = world.promises["f"].clone();
        world.promises.insert(format!("f{n}"), first);
    };
    (0..=MOST_FLOWS).for_each(copy);
    let mut viewers: Vec<_> =
        (0..MOST_FLOWS).map(|n| watchers.watch(&format!("f{n}")).unwrap()).collect();
    for viewer in &mut viewers {
        next(viewer).await;
    }
    let another = format!("f{MOST_FLOWS}");
    assert!(matches!(watchers.watch(&another), Err(Problem::Full)), "all are looked at");
    drop(viewers.remove(7));
    let mut viewer = watchers.watch(&another).unwrap();
    next(&mut viewer).await;
    assert!(matches!(watchers.watch("f7"), Err(Problem::Full)));
    // The one that made room has forgotten its flow, and does not end the watcher that comes after it.
    drop(viewers.remove(0));
    tokio::time::sleep(LINGER / 2).await;
    let (id, _) = next(&mut watchers.watch("f7").unwrap()).await;
    tokio::time::sleep(LINGER - Duration::from_secs(1)).await;
    assert_eq!(next(&mut watchers.watch("f7").unwrap()).await.0, id);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_flow_is_not_watched() {
    let rig = Rig::new("await-chain", Options::default());
    let watchers = watchers(&rig);
    let mut viewer = watchers.watch("nobody").unwrap();
    assert!(matches!(viewer.next().await, Some(Published::Unknown)));
    let before = rig.requests();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.requests(), before);
}

/// The server has lost a flow, and another one has got its id: a viewer who returns sees that one, and so
/// does one who stayed.
#[tokio::test(start_paused = true)]
async fn another_flow_with_the_same_id_is_not_mistaken_for_the_one_before() {
    for (is_over, stays) in [(true, false), (false, false), (false, true)] {
        let rig = Rig::new("await-chain", work(3));
        in_step_2(&rig);
        if is_over {
            ended(&rig, 1);
        }
        let watchers = watchers(&rig);
        let mut viewer = watchers.watch("f").unwrap();
        let (before, _) = next(&mut viewer).await;
        if stays {
            rig.world.lock().unwrap().down = true;
            assert!(soon(viewer.changed()).await);
            next(&mut viewer).await;
        }

        let another = Rig::new("await-chain", work(3));
        another.change("f", |promise| promise["createdAt"] = (START + 60_000).into());
        *rig.world.lock().unwrap() = std::mem::take(&mut *another.world.lock().unwrap());
        if stays {
            assert!(soon(viewer.changed()).await);
        } else {
            drop(viewer);
            viewer = watchers.watch("f").unwrap();
        }
        let (id, after) = soon(next(&mut viewer)).await;
        assert_ne!(id, before);
        assert_eq!(after["started"], START + 60_000, "{is_over} {stays}: {after}");
        assert_eq!(after["complete"], false, "{is_over} {stays}: {after}");
    }
}

/// The server's clock is half a minute ahead of the gateway's.
#[tokio::test(start_paused = true)]
async fn crashes_are_told_by_the_clock_of_the_server() {
    let rig = Rig::new("await-chain", work(3));
    in_step_2(&rig);
    let later = own_clock() + 30_000 - START;
    for id in ["f", "f.0", "f.0.0", "f.0.1"] {
        rig.change(id, |promise| {
            for time in ["createdAt", "settledAt", "timeoutAt"] {
                if let Some(at) = promise[time].as_i64() {
                    promise[time] = (at + later).into();
                }
            }
        });
    }
    let watchers = watchers(&rig);
    let mut viewer = watchers.watch("f").unwrap();
    let (_, before) = next(&mut viewer).await;
    assert_eq!(before["holders"][0]["died"], Value::Null);
    let Some(Published::State { ahead, .. }) = viewer.next().await else { panic!("no state") };
    assert!((29_000..=33_000).contains(&ahead), "{ahead}");

    let holder = node::server::Holder::of("b#1-x@host");
    watchers.crashed("service-b", &Held::new(&settings(), "service-b", holder), Duration::ZERO);
    assert!(soon(viewer.changed()).await);
    let (_, after) = next(&mut viewer).await;
    assert!(after["holders"][0]["died"].is_i64(), "{after}");
    assert!(row(&after, "f.0.1").contains("lost b "), "{after}");
}
