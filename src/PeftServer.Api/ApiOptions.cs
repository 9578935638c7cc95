using System.ComponentModel.DataAnnotations;
using PeftServer.Core.Http;

namespace PeftServer.Api;

/// <summary>Where the api listens and what it takes: section <c>Api</c>.</summary>
public sealed class ApiOptions
{
    public const string Section = "Api";

    /// <summary>Address of the API. Port 0 takes a free one.</summary>
    [Required]
    public string Url { get; set; } = "http://127.0.0.1:8080";

    /// <summary>Address of the admin listener: Hangfire's dashboard.</summary>
    [Required]
    public string AdminUrl { get; set; } = "http://127.0.0.1:8081";

    /// <summary>
    /// Names a request may give in its Host header. Empty: localhost and loopback addresses when both listeners are on
    /// loopback, any name otherwise (a key is required there).
    /// </summary>
    public string[] AllowedHosts { get; set; } = [];

    /// <summary>Origins of web pages that may call the API, such as <c>https://studio.example.org</c>.</summary>
    public string[] CorsOrigins { get; set; } = [];

    /// <summary>Largest JSON body, in bytes.</summary>
    [Range(1024, int.MaxValue)]
    public int MaxRequestBytes { get; set; } = JsonBodyLimit.Default;

    /// <summary>
    /// A job without an error says <c>"error": {}</c>, as OpenAI's API does in fact. True: it says <c>null</c>, as
    /// OpenAI's specification does; some strictly typed clients want that.
    /// </summary>
    public bool StrictNull { get; set; }

    /// <summary>How long a create request that is sent again is known to be the same, in minutes.</summary>
    [Range(1, 1440)]
    public int RetryWindowMinutes { get; set; } = 30;

    /// <summary>Seconds between two keep-alive comments of an event stream.</summary>
    [Range(0.1, 600)]
    public double KeepAliveSeconds { get; set; } = 15;

    /// <summary>Seconds without a byte from an inference host after which a request is given up.</summary>
    [Range(1, 86_400)]
    public int InferenceTimeoutSeconds { get; set; } = 600;
}
