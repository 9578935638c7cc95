using System.Text.Json.Nodes;

namespace PeftServer.Engine.Generation;

/// <summary>
/// Tokens that a model's writing must have, whatever it scores: BART's <c>forced_bos_token_id</c> and <c>forced_eos_token_id</c>.
/// </summary>
/// <param name="First">The first token of an answer.</param>
/// <param name="Last">The token in the last place that an answer may have.</param>
public sealed record ForcedTokens(int? First, int? Last)
{
    /// <summary>What <c>generation_config.json</c> says, or where there is none <c>config.json</c>; null where no token is forced.</summary>
    public static ForcedTokens? Read(string folder)
    {
        var path = ((string[])["generation_config.json", "config.json"]).Select(name => Path.Combine(folder, name)).FirstOrDefault(File.Exists);
        return path is not null && JsonNode.Parse(File.ReadAllText(path)) is JsonObject config
            && (Id(config["forced_bos_token_id"]), Id(config["forced_eos_token_id"])) is var (first, last) && (first ?? last) is not null
            ? new ForcedTokens(first, last)
            : null;
    }

    private static int? Id(JsonNode? value) => value switch
    {
        null => null,
        JsonArray list => (int?)list.FirstOrDefault(),
        _ => (int)value,
    };
}
