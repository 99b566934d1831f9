import Memtap
import Wire

/// The service's values as messages of the API.

extension ForkService.Progress {
  var wire: Snowfork_V1_Progress {
    .with {
      $0.phase = phase
      $0.done = UInt32(done)
      $0.total = UInt32(total)
      $0.text = text
    }
  }
}

extension ForkService.VMView {
  func wire(host: String) -> Snowfork_V1_VM {
    .with {
      $0.name = record.name
      $0.role = record.role == .parent ? "parent" : "clone"
      $0.vmid = UInt32(record.vmid)
      $0.ticket = record.ticket ?? ""
      $0.snapshot = record.snapshot ?? ""
      $0.host = record.host ?? host
      $0.state = record.shownState
      $0.pid = pid
      $0.memoryBytes = UInt64(record.memoryBytes)
      $0.presentBytes = presentBytes
      $0.privateBytes = privateBytes
      $0.reason = record.reason ?? ""
      $0.vcpus = UInt32(record.vcpus)
      $0.image = record.image
      $0.createdUnix = record.createdUnix
      $0.ip = record.network?.address.map { "\($0)" } ?? ""
      $0.mac = record.network?.mac.map { "\($0)" } ?? ""
      $0.cpuLimitPercent = UInt32(record.cpuLimitPercent)
    }
  }
}

extension VMRecord {
  /// `warm` and so on while it lives, then how it ended.
  var shownState: String { state.isOver ? how ?? "ended" : state.rawValue }
}

extension ForkService.Outcome {
  func wire(host: String) -> Snowfork_V1_ForkResult {
    .with {
      $0.ticket = ticket.id
      $0.snapshot = snapshot.id
      $0.parent = snapshot.parent
      $0.ramBytes = UInt64(snapshot.memoryBytes)
      $0.descriptorBytes = UInt64(snapshot.descriptorBytes)
      $0.requested = UInt32(ticket.requested)
      $0.granted = UInt32(ticket.granted)
      $0.parentPauseUs = UInt64(snapshot.pauseMicroseconds)
      $0.forkUs = forkMicroseconds
      $0.ticketUs = UInt64(ticket.ticketMicroseconds)
      $0.freePages = UInt64(snapshot.freePages)
      $0.freeUnknown = snapshot.freeUnknown ?? ""
      $0.phases = log.entries.map { entry in
        .with {
          $0.phase = entry.phase.rawValue
          $0.beginUs = entry.beginMicroseconds
          $0.endUs = entry.endMicroseconds
        }
      }
      $0.clones = clones.map { clone in
        .with {
          $0.vmid = UInt32(clone.vmid)
          $0.name = clone.name
          $0.host = clone.host ?? host
          $0.state = clone.shownState
          $0.activateUs = UInt64(clone.activateMicroseconds)
          $0.readyUs = UInt64(clone.readyMicroseconds)
          $0.reason = clone.reason ?? ""
          $0.processes = UInt32(clone.processes)
          $0.endedUs = UInt64(clone.endedMicroseconds)
          $0.touchedBytes = UInt64(clone.touchedBytes)
          $0.privateBytes = UInt64(clone.privateBytes)
        }
      }
    }
  }
}

extension ExitRecord {
  var wireStatus: Snowfork_V1_ExitStatus {
    .with {
      $0.vmid = UInt32(vmid)
      $0.how = how.rawValue
      $0.status = Int32(truncatingIfNeeded: status)
      $0.result = .init(result)
      $0.reason = reason
    }
  }
}

extension ForkService.SnapshotView {
  var wire: Snowfork_V1_SnapshotInfo {
    .with {
      $0.snapshot = record.id
      $0.parent = record.parent
      $0.ramBytes = UInt64(record.memoryBytes)
      $0.descriptorBytes = UInt64(record.descriptorBytes)
      $0.parentPauseUs = UInt64(record.pauseMicroseconds)
      $0.createdUnix = record.createdUnix
      $0.clones = UInt32(clones)
      $0.kept = record.kept
      $0.presentBytes = presentBytes
      $0.image = record.image
      $0.freePages = UInt64(record.freePages)
      $0.freeUnknown = record.freeUnknown ?? ""
    }
  }
}

extension GuestTraits {
  init(_ wire: Snowfork_V1_GuestTraits) {
    self.init(fetchesAll: wire.fetchesAll, isAgentless: wire.agentless)
  }

  var wire: Snowfork_V1_GuestTraits {
    .with {
      $0.fetchesAll = fetchesAll
      $0.agentless = isAgentless
    }
  }
}

extension ForkService.StatisticsTarget {
  var wire: Snowfork_V1_Stats {
    switch self {
    case .vm(let vm, let snapshot): .of(vm, snapshot)
    case .snapshot(let snapshot): .of(snapshot)
    case .ticket(let id, let vms, let snapshot):
      .with {
        $0.name = id
        $0.kind = "ticket"
        $0.snapshot = snapshot?.snapshot ?? ""
        // Of the home's server: its part of it is all hosts'.
        $0.distribute(snapshot?.distribution)
        for vm in vms {
          let stats = Snowfork_V1_Stats.of(vm, snapshot)
          $0.pagesTotal += stats.pagesTotal
          $0.pagesPresent += stats.pagesPresent
          $0.pagesFetched += stats.pagesFetched
          $0.pagesPrefetched += stats.pagesPrefetched
          $0.pagesAvoided += stats.pagesAvoided
          $0.pagesOverwritten += stats.pagesOverwritten
          $0.pagesShared += stats.pagesShared
          $0.bytesReceived += stats.bytesReceived
          $0.faults += stats.faults
          // Quantiles do not add up: the worst clone's are shown.
          $0.faultUs.p50 = max($0.faultUs.p50, stats.faultUs.p50)
          $0.faultUs.p99 = max($0.faultUs.p99, stats.faultUs.p99)
          $0.faultUs.max = max($0.faultUs.max, stats.faultUs.max)
        }
      }
    }
  }
}

extension Snowfork_V1_Stats {
  static let pageBytes: UInt64 = 4096

  static func of(
    _ vm: MemtapStatistics.VMCounters, _ snapshot: MemtapStatistics.SnapshotCounters?
  ) -> Snowfork_V1_Stats {
    .with {
      $0.name = vm.vm
      $0.kind = vm.snapshot == nil ? "parent" : "clone"
      $0.pagesTotal = vm.pagesTotal
      $0.pagesPresent = snapshot?.pagesPresent ?? vm.pagesTotal
      $0.pagesFetched = vm.pagesFetched
      $0.pagesPrefetched = vm.pagesPrefetched
      $0.pagesAvoided = vm.pagesZero + vm.pagesOverwritten
      $0.pagesOverwritten = vm.pagesOverwritten
      // What a sibling had fetched before this clone asked.
      let own = vm.pagesFetched + vm.pagesPrefetched
      $0.pagesShared = (snapshot?.pagesPresent ?? own) > own ? (snapshot?.pagesPresent ?? own) - own : 0
      $0.bytesReceived = own * pageBytes
      $0.faults = vm.faults
      $0.faultUs = .of(vm.faultMicroseconds)
      $0.snapshot = vm.snapshot ?? ""
      $0.distribute(snapshot?.distribution)
      $0.whole = snapshot?.unsaved == 0
      $0.preimagesSaved = vm.preimagesSaved
    }
  }

  static func of(_ snapshot: MemtapStatistics.SnapshotCounters) -> Snowfork_V1_Stats {
    .with {
      $0.name = snapshot.snapshot
      $0.kind = "snapshot"
      $0.pagesTotal = snapshot.pagesTotal
      $0.pagesPresent = snapshot.pagesPresent
      $0.pagesFetched = snapshot.pagesFetched
      $0.pagesPrefetched = snapshot.pagesPrefetched
      $0.pagesAvoided = snapshot.pagesZero
      $0.pagesShared = 0
      $0.bytesReceived = (snapshot.pagesFetched + snapshot.pagesPrefetched) * pageBytes
      $0.faults = snapshot.faults
      $0.faultUs = .of(snapshot.faultMicroseconds)
      $0.snapshot = snapshot.snapshot
      $0.distribute(snapshot.distribution)
      if let received = snapshot.distribution?.bytesReceived, received > 0 { $0.bytesReceived = received }
      $0.preimagesSaved = snapshot.preimagesSaved
      $0.whole = snapshot.unsaved == 0
    }
  }

  mutating func distribute(_ counters: DistributionCounters?) {
    transport = counters?.transport ?? "local"
    transportReason = counters?.transportReason ?? ""
    pagesPushed = counters?.pagesPushed ?? 0
    remoteFaultUs = .of(counters?.remoteFaultMicroseconds ?? .init())
    mcdist = .with {
      $0.requests = counters?.requests ?? 0
      $0.served = counters?.served ?? 0
      $0.lockstepSuppressed = counters?.lockstepSuppressed ?? 0
      $0.retransmitted = counters?.retransmitted ?? 0
      $0.bytesSent = counters?.bytesSent ?? 0
      $0.rateLimitBytesPerS = counters?.rateLimitBytesPerSecond ?? 0
      $0.dropped = counters?.dropped ?? 0
    }
  }
}

extension Snowfork_V1_Quantiles {
  static func of(_ summary: LatencySummary) -> Snowfork_V1_Quantiles {
    .with {
      $0.p50 = summary.p50
      $0.p99 = summary.p99
      $0.max = summary.max
    }
  }
}
