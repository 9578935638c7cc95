using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;

namespace PeftServer.Engine.Adapters;

/// <summary>
/// Which modules a method takes, as PEFT's <c>target_modules</c> says it: a list of names (each equal to a path or to its
/// end after a dot), a regular expression that must match a whole path, or <c>"all-linear"</c>.
/// </summary>
[JsonConverter(typeof(ModuleSelectorConverter))]
public sealed class ModuleSelector : IEquatable<ModuleSelector>
{
    /// <summary>Every linear layer but the output head.</summary>
    public static ModuleSelector AllLinear { get; } = new("all-linear", null);

    private readonly Regex? _regex;

    private ModuleSelector(string? pattern, IReadOnlyList<string>? names)
    {
        (Pattern, Names) = (pattern, names);
        if (pattern is not null && pattern != "all-linear")
        {
            // A stranger's expression: the engine without backtracking bounds its time.
            _regex = new Regex($@"\A(?:{pattern})\z", RegexOptions.NonBacktracking | RegexOptions.CultureInvariant);
        }
    }

    /// <summary>The regular expression, or <c>all-linear</c>; null where <see cref="Names"/> is given.</summary>
    public string? Pattern { get; }

    /// <summary>The names; null where <see cref="Pattern"/> is given.</summary>
    public IReadOnlyList<string>? Names { get; }

    public bool IsAllLinear => Pattern == "all-linear";

    public static ModuleSelector Of(params string[] names) => new(null, names);

    /// <summary>A regular expression over whole module paths. Throws <see cref="ArgumentException"/> when it is none.</summary>
    public static ModuleSelector Matching(string pattern) =>
        pattern == "all-linear" ? AllLinear : new(pattern, null);

    /// <summary>Whether the module at <paramref name="path"/> is meant; <c>all-linear</c> is for the caller to expand.</summary>
    public bool Matches(string path) =>
        Names is null ? _regex?.IsMatch(path) ?? false : Names.Any(name => EndsWithName(path, name));

    /// <summary>PEFT's rule for a name in a list: the whole path, or what follows a dot in it.</summary>
    public static bool EndsWithName(string path, string name) =>
        path == name || (path.EndsWith(name, StringComparison.Ordinal) && path.Length > name.Length && path[^(name.Length + 1)] == '.');

    public bool Equals(ModuleSelector? other) =>
        other is not null && Pattern == other.Pattern &&
        (Names ?? []).Order(StringComparer.Ordinal).SequenceEqual((other.Names ?? []).Order(StringComparer.Ordinal));

    public override bool Equals(object? obj) => Equals(obj as ModuleSelector);

    public override int GetHashCode() => HashCode.Combine(Pattern, Names?.Count);

    public override string ToString() => Pattern ?? string.Join(", ", Names!);

    private sealed class ModuleSelectorConverter : JsonConverter<ModuleSelector>
    {
        public override ModuleSelector Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        {
            try
            {
                return reader.TokenType is JsonTokenType.String
                    ? Matching(reader.GetString()!)
                    : Of(JsonSerializer.Deserialize<string[]>(ref reader, options)!);
            }
            catch (Exception e) when (e is ArgumentException or NotSupportedException)
            {
                throw new JsonException($"This is no regular expression over module paths: {e.Message}", e);
            }
        }

        public override void Write(Utf8JsonWriter writer, ModuleSelector value, JsonSerializerOptions options)
        {
            if (value.Pattern is not null)
            {
                writer.WriteStringValue(value.Pattern);
                return;
            }

            JsonSerializer.Serialize(writer, value.Names, options);
        }
    }
}
