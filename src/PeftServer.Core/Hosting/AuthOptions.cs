namespace PeftServer.Core.Hosting;

/// <summary>Section <c>Auth</c>.</summary>
public sealed class AuthOptions
{
    public const string Section = "Auth";

    /// <summary>When set, every request to the api needs it. Needed to bind anything but the loopback address.</summary>
    public string? ApiKey { get; set; }
}
