using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters;

/// <summary>What a method puts on a model: a part for each site, in the order of the sites, and what the parts share.</summary>
internal sealed record MethodParts(IReadOnlyList<SiteAdapter> Parts, SharedWeights? Shared = null)
{
    /// <summary>A part for each site, which must all be projections.</summary>
    public static MethodParts Each(IReadOnlyList<Site> sites, Func<Projection, SiteAdapter> part) =>
        new([.. sites.Select(site => part(TargetedConfig.AsProjection(site)))]);
}
