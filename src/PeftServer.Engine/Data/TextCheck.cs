using System.Text.Json;
using PeftServer.Engine.Data.Formats;

namespace PeftServer.Engine.Data;

/// <summary>Looks for texts that are no text: halves of a surrogate pair, which no encoding can carry on.</summary>
internal sealed class TextCheck(FaultReport fault)
{
    public bool AreWhole(JsonElement root) => !MayHoldHalves(root) || Walk(root, "");

    // Only an escape can bring a half in: the bytes themselves are valid UTF-8.
    private static bool MayHoldHalves(JsonElement root) => root.GetRawText().Contains("\\u", StringComparison.Ordinal);

    private bool Walk(JsonElement value, string path)
    {
        switch (value.ValueKind)
        {
            case JsonValueKind.String:
                return IsWhole(() => value.GetString(), path);
            case JsonValueKind.Array:
                var whole = true;
                foreach (var (item, i) in value.EnumerateArray().Select((v, i) => (v, i)))
                {
                    whole &= Walk(item, $"{path}[{i}]");
                }

                return whole;
            case JsonValueKind.Object:
                whole = true;
                foreach (var property in value.EnumerateObject())
                {
                    whole &= IsWhole(() => property.Name, path) && Walk(property.Value, path.Length == 0 ? property.Name : $"{path}.{property.Name}");
                }

                return whole;
            default:
                return true;
        }
    }

    private bool IsWhole(Func<string?> read, string path)
    {
        try
        {
            read();
            return true;
        }
        catch (InvalidOperationException)
        {
            fault(path, "lone_surrogate", "The text holds half of a surrogate pair (\\ud800 to \\udfff without its other half).", "Write the whole pair, or leave it out.");
            return false;
        }
    }
}
