//! thin slice
use std::time::Duration;
fn main() {
    let keep = std::env::args().nth(1).is_some();
    let hash = |seed| simulation::simulate(seed, move |mut world| {
let start = std::fs::read_to_string("/proc/uptime");
        let all = simulation::settings::<node::config::ServiceSettings>(&[]);
        world.service("service-a", all.clone(), service_a::service);
        world.service("service-b", all.clone(), service_b::service);
        world.service("service-c", all.clone(), service_c::service);
        world.record().keep_all();
        let options = flows::Options { work: Some(Duration::from_millis(2500)), sleep: Some(Duration::from_secs(3600)), fail: Some(2)};
        let result = world.run(Duration::from_secs(4000), async move |process: simulation::Process| process.call::<i64>("x", "service-a", "foo", (options,)).await);
        if keep {println!("{}", world.record().log());}
        println!("{result:?} {:?}", world.record().violations());
        world.record().hash()
    });
    println!("{:x} {:x}", hash(1), hash(1));
}
