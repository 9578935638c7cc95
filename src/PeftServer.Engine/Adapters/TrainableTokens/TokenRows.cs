using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.TrainableTokens;

/// <summary>Which rows of which tables train: PEFT's <c>trainable_token_indices</c>, a list of ids or a map from module to list.</summary>
internal static class TokenRows
{
    /// <summary>What is wrong with the setting; null where nothing is.</summary>
    public static string? Fault(JsonNode? setting) => setting switch
    {
        null => null,
        JsonArray ids when Ids(ids) is not null => null,
        JsonObject { Count: > 0 } map when map.All(entry => Ids(entry.Value) is not null) => null,
        _ => "trainable_token_indices is a list of token ids, or a map from the name of a module to such a list.",
    };

    /// <summary>
    /// The embeddings and heads of <paramref name="model"/> that the setting names and the ids of their rows that train; a head that shares an
    /// embedding's table follows that one and is not among them. Throws <see cref="AdapterException"/> where there is no such module or row.
    /// </summary>
    public static IEnumerable<(Site Site, IReadOnlyList<int> Ids)> Of(JsonNode? setting, PretrainedModel model)
    {
        if (setting is not JsonObject map)
        {
            return setting is null ? [] : [Checked(model.Sites().OfType<Embedding>().First(), Ids(setting)!)];
        }

        var named = map.Select(entry => Checked(Table(entry.Key, model), Ids(entry.Value)!)).ToList();
        foreach (var (site, ids) in named.Where(entry => entry.Site is Projection))
        {
            if (named.Exists(other => other.Site is Embedding && ReferenceEquals(other.Site.Weight, site.Weight) && !other.Ids.SequenceEqual(ids)))
            {
                throw new AdapterException("trainable_token_indices", $"{site.Path} shares its table with the embedding, so the same tokens train in both. Leave it out.");
            }
        }

        return named.Where(entry => !named.Exists(other => other.Site != entry.Site && other.Site is Embedding && ReferenceEquals(other.Site.Weight, entry.Site.Weight)));
    }

    private static Site Table(string name, PretrainedModel model) =>
        model.Sites().OfType<Projection>().FirstOrDefault(site => site is Linear && site.Path == model.OutputHead && ModuleSelector.EndsWithName(site.Path, name)) ?? (Site)Find(name, model);

    public static Embedding Find(string name, PretrainedModel model) =>
        model.Sites().OfType<Embedding>().FirstOrDefault(site => ModuleSelector.EndsWithName(site.Path, name))
        ?? throw new AdapterException("trainable_token_indices",
            $"'{name}' is no embedding of this model. It has {string.Join(", ", model.Sites().OfType<Embedding>().Select(site => site.Path))}.");

    public static (T Site, IReadOnlyList<int> Ids) Checked<T>(T site, IReadOnlyList<int> ids)
        where T : Site =>
        ids.FirstOrDefault(id => id < 0 || id >= site.Weight.Shape[0], -1) is var outside and not -1
            ? throw new AdapterException("trainable_token_indices", $"{site.Path} has {site.Weight.Shape[0]} rows; there is no token {outside}.")
            : ids.Distinct().Count() < ids.Count ? throw new AdapterException("trainable_token_indices", "A token id is there twice. Name each once.")
            : (site, ids);

    /// <summary>The projections that share the table of <paramref name="site"/>: a tied head.</summary>
    public static IEnumerable<Projection> Tied(PretrainedModel model, Site site) =>
        model.Sites().OfType<Projection>().Where(other => other != site && ReferenceEquals(other.Weight, site.Weight));

    private static IReadOnlyList<int>? Ids(JsonNode? list)
    {
        try
        {
            return list is JsonArray { Count: > 0 } ids ? ids.Deserialize<int[]>() : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
