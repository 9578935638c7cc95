using System.Text.Json;

namespace PeftServer.Engine.Hub;

/// <summary>A file of a model at one commit.</summary>
/// <param name="Path">Path in the repository.</param>
/// <param name="Size">Bytes; null: the Hub does not say.</param>
/// <param name="Sha256">Digest of a large file; null for one that git holds itself.</param>
/// <param name="GitId">Git's own name of the content; null: the Hub does not say.</param>
internal sealed record HubFile(string Path, long? Size, string? Sha256, string? GitId);

/// <summary>A model at one commit.</summary>
internal sealed record HubListing(string Commit, IReadOnlyList<HubFile> Files)
{
    /// <summary>Reads the answer of <c>/api/models/…/revision/…</c>. Throws <see cref="HubException"/>.</summary>
    public static HubListing Parse(string json, string model)
    {
        try
        {
            using var answer = JsonDocument.Parse(json);
            var commit = answer.RootElement.GetProperty("sha").GetString()!;
            if (commit.Length is < 7 or > 64 || !commit.All(char.IsAsciiHexDigit))
            {
                throw new HubException($"The Hub names '{commit}' as the commit of {model}, which is none.");
            }

            return new HubListing(commit, [.. answer.RootElement.GetProperty("siblings").EnumerateArray().Select(Read)]);
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new HubException($"The Hub's answer about {model} is not what it should be: {e.Message}", e);
        }
    }

    /// <summary>
    /// What a model needs: configs, tokenizer, templates and weights; safetensors where there are any, else PyTorch's files, else the
    /// one GGUF file or the one that <paramref name="wanted"/> names. Throws <see cref="HubException"/>.
    /// </summary>
    public IReadOnlyList<HubFile> Needed(string? wanted)
    {
        var unsafePath = Files.FirstOrDefault(file => file.Path.Split('/').Any(part => part is "" or "." or "..") || file.Path.Contains('\\', StringComparison.Ordinal));
        if (unsafePath is not null)
        {
            throw new HubException($"The repository holds a file named '{unsafePath.Path}', which leads out of it.");
        }

        var small = Files.Where(IsSettings).ToList();
        if (wanted is not null)
        {
            var one = Files.FirstOrDefault(file => file.Path == wanted) ?? throw new HubException($"The repository has no file '{wanted}'.");
            return [.. small.Append(one).Distinct()];
        }

        var weights = Files.Where(file => IsWeights(file, ".safetensors")).ToList();
        weights = weights.Count > 0 ? weights : Files.Where(file => IsWeights(file, ".bin")).ToList();
        if (weights.Count > 0)
        {
            return [.. small, .. weights];
        }

        var ggufs = Files.Where(file => file.Path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase)).ToList();
        return ggufs switch
        {
            [] => throw new HubException("The repository holds neither safetensors, nor PyTorch files, nor GGUF files."),
            [var one] => [.. small, one],
            _ => throw new HubException($"The repository holds several GGUF files. Name one: {string.Join(", ", ggufs.Select(file => file.Path))}."),
        };
    }

    private static HubFile Read(JsonElement sibling)
    {
        var lfs = sibling.TryGetProperty("lfs", out var large) && large.ValueKind is JsonValueKind.Object ? large : (JsonElement?)null;
        var digest = lfs is { } entry ? Text(entry, "sha256") ?? Text(entry, "oid") : null;
        return new HubFile(
            sibling.GetProperty("rfilename").GetString()!, sibling.TryGetProperty("size", out var size) && size.ValueKind is JsonValueKind.Number ? size.GetInt64() : null,
            digest, Text(sibling, "blobId"));
    }

    private static string? Text(JsonElement element, string name) =>
        element.TryGetProperty(name, out var value) && value.ValueKind is JsonValueKind.String ? value.GetString() : null;

    // Settings stand at the top; sentence-transformers has one folder a module.
    private static bool IsSettings(HubFile file) => file.Path.Split('/') switch
    {
        [var name] => name.EndsWith(".json", StringComparison.Ordinal) && !name.EndsWith(".index.json", StringComparison.Ordinal)
            || name.EndsWith(".jinja", StringComparison.Ordinal) || name.EndsWith(".model", StringComparison.Ordinal) || name is "vocab.txt" or "merges.txt",
        [var folder, "config.json"] => char.IsAsciiDigit(folder[0]),
        _ => false,
    };

    private static bool IsWeights(HubFile file, string end)
    {
        var name = file.Path;
        var stem = end == ".bin" ? "pytorch_model" : "model";
        return !name.Contains('/', StringComparison.Ordinal)
            ? name == $"{stem}{end}" || name == $"{stem}{end}.index.json" || (name.StartsWith($"{stem}-", StringComparison.Ordinal) && name.EndsWith(end, StringComparison.Ordinal))
            : end == ".safetensors" && name.Split('/') is [var folder, "model.safetensors"] && char.IsAsciiDigit(folder[0]);
    }
}
