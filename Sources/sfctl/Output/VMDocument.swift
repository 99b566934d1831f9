import Wire

/// A VM in `ps --json` and `vm start --json`.
struct VMDocument: Encodable {
  var name: String
  var role: String
  var vmid: UInt32
  var ticket: String
  var snapshot: String
  var host: String
  var state: String
  var pid: Int32
  var memoryBytes: UInt64
  var presentBytes: UInt64
  var privateBytes: UInt64
  var ip: String
  var mac: String
  var reason: String
  var vcpus: UInt32
  var image: String
  var createdUnix: Int64
  /// Of a processor, for each virtual CPU; 0: none.
  var cpuLimitPercent: UInt32

  init(_ vm: Snowfork_V1_VM) {
    name = vm.name
    role = vm.role
    vmid = vm.vmid
    ticket = vm.ticket
    snapshot = vm.snapshot
    host = vm.host
    state = vm.state
    pid = vm.pid
    memoryBytes = vm.memoryBytes
    presentBytes = vm.presentBytes
    privateBytes = vm.privateBytes
    ip = vm.ip
    mac = vm.mac
    reason = vm.reason
    vcpus = vm.vcpus
    image = vm.image
    createdUnix = vm.createdUnix
    cpuLimitPercent = vm.cpuLimitPercent
  }
}

/// `ps --json`.
struct VMListDocument: Encodable {
  var vms: [VMDocument]

  var text: String {
    var table = Table(
      "NAME", "ROLE", "VMID", "TICKET", "SNAPSHOT", "HOST", "STATE", "PID", "MEMORY", "PRESENT", "PRIVATE",
      "REASON")
    for vm in vms {
      table.add(
        vm.name, vm.role, vm.role == "clone" ? "\(vm.vmid)" : "", vm.ticket, vm.snapshot, vm.host, vm.state,
        vm.pid > 0 ? "\(vm.pid)" : "", Units.bytes(vm.memoryBytes), Units.bytes(vm.presentBytes),
        Units.bytes(vm.privateBytes), vm.reason)
    }
    return table.isEmpty ? "no VM runs; “sfctl vm start NAME” starts one" : table.text
  }
}
