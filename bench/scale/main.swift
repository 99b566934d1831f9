// The protocol's own state machines on a simulated network (Tests/McdistSimulation): what 1,024 hosts cost. Deterministic:
// no figure depends on the machine it runs on. JSON lines on stdout.
import Foundation
import McdistSimulation

struct Case {
  var name: String
  var hosts: Int
  var loss: Double
  var slow = false
}

let cases = [
  Case(name: "one", hosts: 1, loss: 0.01),
  Case(name: "lossless", hosts: 1024, loss: 0),
  Case(name: "loss-1", hosts: 1024, loss: 0.01),
  Case(name: "slow-receiver", hosts: 1024, loss: 0.01, slow: true),
]
for one in cases {
  var plan = SimulationPlan()
  plan.clients = one.hosts
  plan.pages = 2048
  plan.loss = one.loss
  plan.seed = 1024
  if one.slow { plan.slow = (client: 7, rate: 8e6) }
  let simulation = Simulation(plan)
  let isDone = simulation.run(limit: 120_000_000_000)
  let ends = simulation.finishedAt.compactMap { $0 }.sorted()
  let fast = simulation.finishedAt.enumerated().filter { !one.slow || $0.offset != 7 }.compactMap {
    $0.element
  }
  let counters = simulation.server.counters
  let step = max(1, simulation.rates.count / 32)
  let curve = stride(from: 0, to: simulation.rates.count, by: step).map { index in
    "[\(simulation.rates[index].time / 1_000_000),\(Int(simulation.rates[index].bytesPerSecond / 1e6))]"
  }
  let median = ends.isEmpty ? 0 : ends[ends.count / 2] / 1000
  print(
    """
    {"bench":"scale","case":"\(one.name)","hosts":\(one.hosts),"loss":\(one.loss),"pages":\(plan.pages),\
    "complete":\(isDone),"bytes_per_page":\(simulation.bytesSent / plan.pages),"last_page_us":\((ends.last ?? 0) / 1000),\
    "median_host_us":\(median),"last_other_host_us":\((fast.max() ?? 0) / 1000),"request_packets":\(simulation.requestPackets),\
    "requests":\(counters.requests),"served":\(counters.served),"lockstep_suppressed":\(counters.lockstepSuppressed),\
    "retransmitted":\(counters.retransmitted),"parities":\(simulation.paritiesSent),"delivered_twice":\(simulation.newTwice),\
    "rate_limit_ms_mb_per_s":[\(curve.joined(separator: ","))]}
    """)
  FileHandle.standardError.write(
    Data(
      "scale \(one.name): \(ends.count) of \(one.hosts) hosts whole after \((ends.last ?? 0) / 1_000_000) ms, \(counters.served) pages sent for \(plan.pages)\n"
        .utf8))
}
