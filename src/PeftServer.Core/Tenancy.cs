namespace PeftServer.Core;

/// <summary>Every row that a tenant owns carries a project.</summary>
public static class Tenancy
{
    /// <summary>The project of an installation that knows no other.</summary>
    public const string DefaultProject = "default";
}
