using System.Text.Json;
using System.Text.RegularExpressions;

namespace PeftServer.Engine.Evaluation.Graders;

/// <summary>An answer, and the row that it answers.</summary>
/// <param name="OutputText">What the model wrote.</param>
/// <param name="Item">The row of the data set.</param>
public sealed partial record GradedSample(string OutputText, JsonElement Item)
{
    /// <summary>What embeds texts, for graders that compare embeddings.</summary>
    public TextEmbeddings? Embeddings { get; init; }

    /// <summary>The text of a template; a field that the row lacks is empty.</summary>
    public string Fill(string template) => Reference().Replace(template, match => Value(match.Groups[1].Value.Split('.')));

    /// <summary>What is wrong with a template, whatever the row; null when nothing is.</summary>
    public static string? FaultOf(string template) => Reference().Matches(template)
        .Select(match => match.Groups[1].Value)
        .Where(path => path is not "sample.output_text" && !path.StartsWith("sample.output_json", StringComparison.Ordinal) && !path.StartsWith("item.", StringComparison.Ordinal))
        .Select(path => $"'{{{{ {path} }}}}' is neither sample.output_text, nor sample.output_json, nor item.NAME.").FirstOrDefault();

    private string Value(string[] path) => path switch
    {
        ["sample", "output_text"] => OutputText,
        ["sample", "output_json", .. var rest] => Text(Output(), rest),
        ["item", .. var rest] => Text(Item, rest),
        _ => "",
    };

    private JsonElement? Output()
    {
        try
        {
            return JsonSerializer.Deserialize<JsonElement>(OutputText);
        }
        catch (JsonException)
        {
            return null; // an answer that is no JSON has none of its fields
        }
    }

    private static string Text(JsonElement? value, ReadOnlySpan<string> path)
    {
        foreach (var name in path)
        {
            value = value is { ValueKind: JsonValueKind.Object } map && map.TryGetProperty(name, out var inner) ? inner
                : value is { ValueKind: JsonValueKind.Array } list && int.TryParse(name, out var i) && i >= 0 && i < list.GetArrayLength() ? list[i]
                : null;
        }

        return value switch
        {
            null or { ValueKind: JsonValueKind.Null or JsonValueKind.Undefined } => "",
            { ValueKind: JsonValueKind.String } text => text.GetString()!,
            { } other => other.GetRawText(),
        };
    }

    [GeneratedRegex(@"\{\{\s*([\w.]+)\s*\}\}")]
    private static partial Regex Reference();
}
