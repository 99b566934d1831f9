import CloneNetwork
import Testing

/// Addresses: what is read, what is refused, who has which.
struct AddressPlanTests {
  @Test(arguments: ["0.0.0.0", "10.111.0.2", "255.255.255.255"])
  func addressesAreReadAsTheyAreWritten(text: String) {
    #expect(IPv4Address(text)?.description == text)
  }

  @Test(arguments: [
    "", "10", "10.0.0", "10.0.0.0.1", "10.0.0.256", "10.0.0.-1", "10.0.0.+1", "10.0.0.01", "10.0.0.",
    ".1.2.3",
    "10.0.0.1 ", "0x0a.0.0.1", "10.0.0.\u{0661}", "a.b.c.d", "10.0..1", "10.0.0.1/8",
  ])
  func whatIsNoAddressIsRefused(text: String) { #expect(IPv4Address(text) == nil) }

  @Test func subnets() throws {
    let subnet = try #require(IPv4Subnet("10.111.0.0/16"))
    #expect(subnet.description == "10.111.0.0/16")
    #expect(subnet.count == 65_536)
    #expect(subnet.last == IPv4Address("10.111.255.255"))
    #expect(subnet.contains(IPv4Address("10.111.0.0")!) && subnet.contains(IPv4Address("10.111.255.255")!))
    #expect(!subnet.contains(IPv4Address("10.110.255.255")!) && !subnet.contains(IPv4Address("10.112.0.0")!))
    let all = try #require(IPv4Subnet("0.0.0.0/0"))
    #expect(all.contains(IPv4Address("255.255.255.255")!) && all.count == 1 << 32)
    let one = try #require(IPv4Subnet("10.0.0.1"))
    #expect(one.prefixLength == 32 && one.count == 1 && one.last == one.base)
  }

  @Test(arguments: [
    "10.111.0.1/16", "10.111.0.0/33", "10.111.0.0/-1", "10.111.0.0/+8", "10.111.0.0/", "10.111.0.0/16/2",
    "/16", "",
    "10.111.0.0/016",
  ])
  func whatIsNoSubnetIsRefused(text: String) { #expect(IPv4Subnet(text) == nil) }

  @Test func macAddresses() throws {
    let mac = try #require(MACAddress("02:5F:0a:6f:00:02"))
    #expect(mac.description == "02:5f:0a:6f:00:02" && mac.isUnicast)
    #expect(MACAddress("01:00:5e:00:00:01")?.isUnicast == false)
    #expect(MACAddress("00:00:00:00:00:00")?.isUnicast == false)
    for text in [
      "", "02:5f:0a:6f:00", "02:5f:0a:6f:00:02:03", "2:5f:0a:6f:00:02", "02:5f:0a:6f:00:+2",
      "02-5f-0a-6f-00-02",
    ] {
      #expect(MACAddress(text) == nil, "\(text)")
    }
    #expect(MACAddress(bytes: [1, 2, 3]) == nil)
  }

  @Test func numbersOfAPlan() throws {
    let plan = try #require(AddressPlan(IPv4Subnet("10.111.0.0/16")!))
    #expect(plan.gateway == IPv4Address("10.111.0.1"))
    #expect(plan.broadcast == IPv4Address("10.111.255.255"))
    #expect(plan.address(vmid: 0) == IPv4Address("10.111.0.2"))
    #expect(plan.address(vmid: 3) == IPv4Address("10.111.0.5"))
    #expect(plan.vmidMax == 65_532)
    #expect(plan.address(vmid: 65_532) == IPv4Address("10.111.255.254"))
    #expect(plan.address(vmid: 65_533) == nil && plan.address(vmid: -1) == nil)
    #expect(AddressPlan.mac(of: IPv4Address("10.111.0.5")!) == MACAddress("02:5f:0a:6f:00:05"))
  }

  /// Every address of a small subnet is reserved or of exactly one vmid, which has it.
  @Test func addressesAndVmidsAreOneToOne() throws {
    let subnet = IPv4Subnet("192.168.7.240/28")!
    let plan = try #require(AddressPlan(subnet))
    var vmids: [Int] = []
    for number in 0..<16 {
      let address = IPv4Address(number: subnet.base.number + UInt32(number))
      guard let vmid = plan.vmid(of: address) else {
        #expect([0, 1, 15].contains(number))
        continue
      }
      #expect(plan.address(vmid: vmid) == address)
      vmids.append(vmid)
    }
    #expect(vmids == Array(0...plan.vmidMax))
    #expect(plan.vmid(of: IPv4Address("192.168.7.239")!) == nil)
    #expect(plan.vmid(of: IPv4Address("192.168.8.0")!) == nil)
  }

  @Test func subnetsThatAreTooSmallOrTooLargeHaveNoPlan() {
    #expect(AddressPlan(IPv4Subnet("10.0.0.0/30")!) == nil)
    #expect(AddressPlan(IPv4Subnet("10.0.0.0/7")!) == nil)
    #expect(AddressPlan(IPv4Subnet("10.0.0.0/29")!)?.vmidMax == 4)
  }
}
