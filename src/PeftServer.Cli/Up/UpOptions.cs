namespace PeftServer.Cli.Up;

/// <summary>What <c>up</c> and <c>demo</c> start.</summary>
/// <param name="Data">The data directory.</param>
/// <param name="Port">Of the api; 0 for a free one.</param>
/// <param name="AdminPort">Of the admin listener; null: 8081 or a free one.</param>
/// <param name="Set">Settings from the command line.</param>
internal sealed record UpOptions(string Data, int Port, int? AdminPort, IReadOnlyDictionary<string, string?> Set)
{
    public const int DefaultPort = 8080;
    public const int DefaultAdminPort = 8081;
}
