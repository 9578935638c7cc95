using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.Ia3;

/// <summary>IA³ adapters put together into one: PEFT's <c>add_weighted_adapter</c>.</summary>
public static class Ia3Combination
{
    /// <summary>
    /// One adapter on the model of <paramref name="adapters"/> whose vectors are the weighted sums of theirs. Throws <see cref="AdapterException"/> where
    /// they do not go together. The caller disposes of it.
    /// </summary>
    public static Adapter Combine(IReadOnlyList<(Adapter Adapter, double Weight)> adapters)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var configs = adapters.Select(entry => Checked(entry.Adapter)).ToList();
        var combined = (configs[0] with
        {
            TargetModules = Union("target_modules", configs.ConvertAll(config => config.TargetModules!)),
            FeedforwardModules = Union("feedforward_modules", configs.ConvertAll(config => config.FeedforwardModules!)),
        }).CreateAdapter(adapters[0].Adapter.Model);
        foreach (var (key, weight) in combined.State)
        {
            var sum = zeros([.. weight.Shape], device: combined.Model.Device);
            foreach (var (adapter, share) in adapters)
            {
                if (adapter.State.FirstOrDefault(entry => entry.Key == key).Weight is { } given)
                {
                    sum = sum.Plus(given.Value.Times(share));
                }
            }

            weight.Set(sum);
        }

        return combined;
    }

    private static Ia3Config Checked(Adapter adapter) => adapter.Config is Ia3Config config && adapter.Parts.All(entry => entry.Part is Ia3Projection)
        ? config
        : throw new AdapterException("adapters", "Only IA3 adapters without modules that train in full can be combined.");

    private static ModuleSelector Union(string field, List<ModuleSelector> selectors)
    {
        if (selectors.TrueForAll(selector => selector.Names is not null))
        {
            return ModuleSelector.Of([.. selectors.SelectMany(selector => selector.Names!).Distinct()]);
        }

        return selectors.TrueForAll(selector => selector.Names is null && !selector.IsAllLinear)
            ? ModuleSelector.Matching(string.Join("|", selectors.Select(selector => $"({selector.Pattern})")))
            : selectors.Distinct().Count() == 1 ? selectors[0]
            : throw new AdapterException(field, "Adapters that are combined name their modules alike: all by lists, or all by regular expressions.");
    }
}
