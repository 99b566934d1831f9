/// `sfctl checkpoint --json`.
public struct CheckpointDocument: Decodable {
  public var name: String
  public var host: String
  public var sequence: Int
  public var pauseUs: Int
  public var dirtyPages: Int
  public var bytesSent: Int
  public var diskBytes: Int
  public var totalUs: Int
}

/// `sfctl replica ls --json`.
public struct ReplicaList: Decodable {
  public struct Replica: Decodable {
    public var name: String
    public var role: String
    public var home: String
    public var host: String
    public var state: String
    public var sequence: Int
    public var receivedSequence: Int
    public var reason: String
    public var policy: String
    public var policyReason: String
  }
  public var replicas: [Replica]
}
