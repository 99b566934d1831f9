import Memtap
import Wire

/// What follows from other hosts' coming and going.
extension ForkService: Cluster.Observer {
  func peerIsUp(_ name: String, _ reply: Snowfork_V1_HelloReply, isNew: Bool) async {
    await reportEnds()
    layersWanted[name] = (Set(reply.neededLayers), .now)
    learnReplaced(reply.activatedReplicas, on: name)
    if endedReplicas[name] != nil { await tellEnds(to: name) }
    // What is there of ours that we have given up meanwhile.
    let gone = reply.foreignClones.filter {
      let record = guests[$0.name]?.record
      return record?.host != name || record?.ticket != $0.ticket || record?.state.isOver != false
    }
    let home = await cluster.host
    for (ticket, clones) in Dictionary(grouping: gone, by: \.ticket) {
      await end(clones.map(\.name), of: ticket, on: name, reason: "its home \(home) had given it up")
    }
    for id in reply.foreignSnapshots {
      if snapshots[id] == nil {
        await drop(id, on: name)
      } else if deliveries[id]?[name] == nil {
        // An earlier daemon of ours brought it there.
        deliveries[id, default: [:]][name] = Task {}
      }
    }
    // What ended there while we were away.
    let alive = Set(reply.foreignClones.map(\.name))
    for (clone, guest) in guests
    where guest.record.host == name && guest.record.state == .running && !alive.contains(clone) && isNew {
      await endClone(clone, .lost, reason: "host \(name) does not have it any more")
    }
  }

  func peerIsDown(_ name: String) async {
    for (clone, guest) in guests where guest.record.host == name && !guest.record.state.isOver {
      await endClone(clone, .lost, reason: "host \(name) does not answer")
    }
    for (id, snapshot) in snapshots where snapshot.home == name {
      try? await memtap.run { try $0.originGone(snapshot: id, reason: "the host does not answer") }
      snapshots[id]?.kept = false
      await release(id)
    }
    for id in deliveries.keys { deliveries[id]?[name] = nil }
    await removeUnusedSnapshots()
  }
}
