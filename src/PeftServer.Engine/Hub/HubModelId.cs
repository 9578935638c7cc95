using System.Text.RegularExpressions;

namespace PeftServer.Engine.Hub;

/// <summary>A model on the Hugging Face Hub: <c>owner/name</c> or <c>owner/name@revision</c>, a branch, a tag or a commit.</summary>
/// <param name="Repository">owner/name, or a name alone for the oldest models.</param>
/// <param name="Revision">What stands behind the @; main where nothing does.</param>
public sealed partial record HubModelId(string Repository, string Revision = "main")
{
    /// <summary>Its folder in a cache, as huggingface_hub names it.</summary>
    internal string CacheName => $"models--{Repository.Replace("/", "--", StringComparison.Ordinal)}";

    /// <summary>The name without its owner.</summary>
    public string Name => Repository[(Repository.LastIndexOf('/') + 1)..];

    /// <summary>Whether a text has the form of an id.</summary>
    public static bool TryParse(string text, out HubModelId id)
    {
        var match = Form().Match(text);
        var (repository, revision) = (match.Groups["repository"].Value, match.Groups["revision"].Value);
        id = new HubModelId(repository, revision.Length > 0 ? revision : "main");
        return match.Success && !repository.Contains("..", StringComparison.Ordinal) && !repository.Contains("--", StringComparison.Ordinal)
            && (revision.Length == 0 || !revision.Split('/').Any(part => part is "" or "." or ".."));
    }

    /// <summary>The id in a text. Throws <see cref="HubException"/>.</summary>
    public static HubModelId Parse(string text) =>
        TryParse(text, out var id) ? id : throw new HubException($"'{text}' is no id of a model on the Hub. Write owner/name or owner/name@revision.");

    public override string ToString() => $"{Repository}@{Revision}";

    [GeneratedRegex(@"\A(?<repository>[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?)(@(?<revision>[A-Za-z0-9][A-Za-z0-9._/-]{0,254}))?\z", RegexOptions.CultureInvariant)]
    private static partial Regex Form();
}

/// <summary>The Hub cannot give what was asked of it; the message says what to do.</summary>
public sealed class HubException : Exception
{
    public HubException(string message)
        : base(message)
    {
    }

    public HubException(string message, Exception inner)
        : base(message, inner)
    {
    }
}
