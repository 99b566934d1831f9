import Foundation
import Wire

/// Answers with a value in every field.
enum Sample {
  static let vm = Snowfork_V1_VM.with {
    $0.name = "dev"
    $0.role = "parent"
    $0.host = "h1"
    $0.state = "running"
    $0.pid = 4711
    $0.memoryBytes = 256 << 20
    $0.presentBytes = 128 << 20
    $0.privateBytes = 127 << 20
    $0.vcpus = 1
    $0.image = "mini"
    $0.createdUnix = 1_700_000_000
    $0.cpuLimitPercent = 20
  }

  static let ended = Snowfork_V1_VM.with {
    $0.name = "dev.2"
    $0.role = "clone"
    $0.vmid = 2
    $0.ticket = "t1"
    $0.snapshot = "s1"
    $0.host = "h1"
    $0.state = "lost"
    $0.memoryBytes = 256 << 20
    $0.ip = "10.0.0.2"
    $0.mac = "52:54:00:00:00:02"
    $0.reason = "its QEMU ended"
  }

  static let fork = Snowfork_V1_ForkResult.with {
    $0.ticket = "t1"
    $0.snapshot = "s1"
    $0.parent = "dev"
    $0.ramBytes = 268_435_456
    $0.descriptorBytes = 361_000
    $0.requested = 1
    $0.granted = 1
    $0.parentPauseUs = 7400
    $0.forkUs = 51_000
    $0.ticketUs = 400_000
    $0.clones = [
      .with {
        $0.vmid = 1
        $0.name = "dev.1"
        $0.host = "h1"
        $0.state = "running"
        $0.activateUs = 12_000
        $0.readyUs = 50_000
        $0.processes = 1
        $0.endedUs = 90_000
        $0.touchedBytes = 4096
        $0.privateBytes = 8192
      }
    ]
    $0.phases = [
      .with {
        $0.phase = "freeze"
        $0.beginUs = 10
        $0.endUs = 8000
      }
    ]
  }

  static let snapshot = Snowfork_V1_SnapshotInfo.with {
    $0.snapshot = "warm"
    $0.parent = "dev"
    $0.ramBytes = 268_435_456
    $0.descriptorBytes = 361_000
    $0.parentPauseUs = 7400
    $0.createdUnix = 1_700_000_000
    $0.clones = 2
    $0.kept = true
    $0.presentBytes = 4096
    $0.image = "mini"
  }

  static let statuses: [Snowfork_V1_ExitStatus] = [
    .with {
      $0.vmid = 1
      $0.how = "exited"
      $0.status = 3
      $0.result = Data("42".utf8)
    },
    .with {
      $0.vmid = 2
      $0.how = "lost"
      $0.reason = "its QEMU ended"
    },
  ]

  static let stats = Snowfork_V1_Stats.with {
    $0.name = "t1"
    $0.kind = "ticket"
    $0.pagesTotal = 65_536
    $0.pagesPresent = 1000
    $0.pagesFetched = 100
    $0.pagesPrefetched = 900
    $0.pagesAvoided = 7
    $0.pagesShared = 8
    $0.bytesReceived = 9
    $0.faults = 110
    $0.faultUs = .with {
      $0.p50 = 12
      $0.p99 = 30
      $0.max = 99
    }
    $0.preimagesSaved = 5
    $0.disk = .with {
      $0.layers = 3
      $0.bytes = 4096
      $0.fetchedBytes = 8192
    }
    $0.host = "h1"
    $0.snapshot = "s1"
    $0.transport = "unicast"
    $0.transportReason = "no multicast arrives"
    $0.pagesPushed = 11
    $0.remoteFaultUs = .with {
      $0.p50 = 10
      $0.p99 = 20
      $0.max = 40
    }
    $0.mcdist = .with {
      $0.requests = 1
      $0.served = 2
      $0.lockstepSuppressed = 3
      $0.retransmitted = 4
      $0.rateLimitBytesPerS = 5
      $0.bytesSent = 6
      $0.dropped = 7
    }
  }

  static let host = Snowfork_V1_HostInfo.with {
    $0.name = "h1"
    $0.cpus = 2
    $0.memoryBytes = 24 << 30
    $0.memoryFreeBytes = 20 << 30
    $0.vms = 3
    $0.accelerator = "tcg"
    $0.version = "0.1.0"
    $0.state = "up"
    $0.address = "10.0.0.1:7543"
  }

  static let ticket = Snowfork_V1_Ticket.with {
    $0.ticket = "t1"
    $0.parent = "dev"
    $0.snapshot = "s1"
    $0.state = "cloned"
    $0.requested = 4
    $0.granted = 3
    $0.alive = 2
  }

  static let info = Snowfork_V1_InfoReply.with {
    $0.version = "0.1.0"
    $0.host = "h1"
    $0.pid = 11
    $0.memtapPid = 12
    $0.accelerator = "tcg"
    $0.acceleratorReason = "TCG: no vmx"
    $0.hypervisorUri = "qemu:///embed"
  }

  static let history = Snowfork_V1_TicketHistoryReply.with {
    $0.ticket = "t1"
    $0.snapshot = "s1"
    $0.pagesTotal = 8
    $0.hosts = [
      .with {
        $0.host = "h<1>"
        $0.pages = Data([1, 1, 2, 6, 5, 5, 5, 5])
        $0.samples = [
          .with {
            $0.us = 50; $0.pages = 2; $0.faults = 1
          }
        ]
      },
      .with {
        $0.host = "h2"
        $0.pages = Data([0, 4, 2, 3, 5, 5, 5, 5])
        $0.samples = [
          .with {
            $0.us = 50; $0.pages = 1; $0.bytes = 4096; $0.faults = 1
          },
          .with {
            $0.us = 100; $0.pages = 3; $0.bytes = 9000; $0.faults = 1
          },
        ]
      },
    ]
  }
}
