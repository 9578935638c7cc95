using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace PeftServer.Core.Data.Migrations
{
    /// <inheritdoc />
    public partial class JobMethod : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<string>(
                name: "auto_settings",
                table: "jobs",
                type: "jsonb",
                nullable: false,
                defaultValueSql: "'[]'::jsonb");

            migrationBuilder.AddColumn<string>(
                name: "method",
                table: "jobs",
                type: "jsonb",
                nullable: false,
                defaultValueSql: "'{\"type\": \"supervised\"}'::jsonb");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropColumn(
                name: "auto_settings",
                table: "jobs");

            migrationBuilder.DropColumn(
                name: "method",
                table: "jobs");
        }
    }
}
